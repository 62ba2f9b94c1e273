"""Push a folder of `write_repository` to the Hugging Face Hub: the whole model to its branch, then the plain face."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from vissl_zoo.errors import UserError, first_line
from vissl_zoo.hub.repository import FULL, full_branch

SAFE = (".safetensors", ".json", ".md")
"""Ends of the names of files that are pushed; no pickle is among them."""


def check_repo_id(repo_id: str) -> None:
    """Refuse what the Hub would refuse.

    Raises:
        UserError: `repo_id` is not "ORG/NAME".
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"--repo-id {repo_id!r}: {first_line(error)}") from error
    if repo_id.count("/") != 1:
        raise UserError(f"--repo-id {repo_id!r} must be ORG/NAME")


def require_token() -> None:
    """Refuse to begin what would end without a login.

    Raises:
        UserError: there is no token of the Hub.
    """
    if get_token() is None:
        raise UserError(
            "publishing needs a token of the Hub: run `hf auth login` or set HF_TOKEN (or --dry-run)"
        )


def push(folder: Path, repo_id: str, *, revision: str = "main", private: bool = False) -> str:
    """Push both faces and return the address of the repository.

    The whole model goes first, so that a push that breaks off leaves no card that promises a missing branch. Weights
    that an earlier push left and this one lacks are deleted; other files of the repository stay.

    Raises:
        UserError: the Hub refuses, or cannot be reached.
    """
    refused = sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix not in SAFE
    )
    if refused:
        raise ValueError(f"{folder} holds files that are not pushed: {', '.join(refused)}")
    api = HfApi(library_name="vissl_zoo")
    branch = full_branch(revision)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        for name in (branch, revision):
            if name != "main":
                api.create_branch(repo_id, branch=name, exist_ok=True)
        for face, to, what in (
            (folder / FULL, branch, "Whole model"),
            (folder, revision, "Plain timm model and card"),
        ):
            api.upload_folder(
                repo_id=repo_id,
                folder_path=face,
                revision=to,
                commit_message=f"{what}, with vissl_zoo",
                ignore_patterns=[f"{FULL}/*"],
                delete_patterns=["*.safetensors", "*.bin", "*.pth", "*.pt"],
            )
    except HfHubHTTPError as error:
        raise UserError(f"the Hub refuses {repo_id}: {_reason(error)}") from error
    # Under each version of huggingface_hub is another library, with its own errors.
    except Exception as error:
        raise UserError(f"the Hub ({constants.ENDPOINT}) cannot be reached: {first_line(error)}") from error
    return str(url)


def _reason(error: HfHubHTTPError) -> str:
    """The server's own words, or the status with what it means."""
    status = error.response.status_code
    meant = {401: "the token is not valid", 403: "the token may not write there"}.get(status)
    said = (getattr(error, "server_message", None) or first_line(error)).splitlines()[0]
    return f"{meant} ({said})" if meant else said
