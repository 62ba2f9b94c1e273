"""Two faces of the same weights: written as the folder that a Hub repository will be, and pushed to the Hub.

    D/README.md              the model card
    D/config.json            timm's own architecture and nothing of vissl_zoo
    D/model.safetensors      the backbone (and classifier, if there is one): plain timm loads it
    D/vissl_zoo.safetensors  the whole model, for a registered name's `hf_hub_filename`
    D/full/                  the export, which becomes a branch of its own

A backbone that timm lacks has no plain face: config.json and model.safetensors are left out, and the card says so.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file
from torch import nn

from vissl_zoo.errors import UserError, first_line
from vissl_zoo.hub.card import Place, Record, render_card
from vissl_zoo.hub.export import (
    CONFIG,
    HEADS,
    README,
    WEIGHTS,
    open_export,
    read_json,
    save_tensors,
    save_weights,
    unfinished,
)
from vissl_zoo.models import HEAD_ARGS, backbone_of
from vissl_zoo.models.head_weights import split_heads
from vissl_zoo.output import write_text

WHOLE = "vissl_zoo.safetensors"
FULL = "full"
SAFE = (".safetensors", ".json", ".md")  # ends of the names of files that are pushed; no pickle is among them
_OWN = {README, CONFIG, WEIGHTS, WHOLE, FULL}


def full_branch(revision: str) -> str:
    """The branch of the whole model beside the plain one: `full` beside main, `REVISION-full` beside others."""
    return FULL if revision == "main" else f"{revision}-{FULL}"


def read_evaluation(folder: str | Path) -> dict[str, Any]:
    """The metrics.json in a folder of `vissl-zoo evaluate` or in the report of a run.

    Raises:
        UserError: there is none.
    """
    path = Path(folder)
    path = path / "metrics.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"--evaluation {folder} holds no metrics.json: make it with `vissl-zoo evaluate`")
    found = read_json(path, "--evaluation")
    if "data" not in found or not {"knn", "linear", "uncertainty", "retrieval"} & found.keys():
        raise UserError(f"--evaluation {path} is not of `vissl-zoo evaluate`: it has no data or no protocol")
    return found


def write_repository(
    export: Path,
    output_dir: str | os.PathLike,
    repo_id: str,
    record: Record,
    *,
    metrics: Mapping[str, Any] | None = None,
    revision: str = "main",
    dataset: str | None = None,
    license: str = "apache-2.0",
) -> Path:
    """Write the folder of `repo_id` for an export and return it; no network is touched.

    It is written beside `output_dir`, loaded by timm, and only then moved into place.

    Args:
        export: folder of the export.
        output_dir: folder to write; replaced if an earlier call made it.
        repo_id: "ORG/NAME", which the card tells the reader to type.
        record: how the model came to be.
        metrics: of a metrics.json, for the card; by default what the export's config.json keeps.
        revision: branch of the plain face.
        dataset: the training data's name on the Hub, for the card.
        license: of the weights, as the Hub names it.

    Raises:
        UserError: the export cannot be loaded, or `output_dir` holds files of others.
    """
    output_dir = Path(output_dir)
    found = sorted(p.name for p in output_dir.iterdir()) if output_dir.is_dir() else []
    foreign = [name for name in found if name not in _OWN]
    if not {WHOLE, FULL} <= {*found}:  # the names in it are those of an export, which is not to be lost
        foreign = foreign or found
    if foreign or output_dir.is_file():
        raise UserError(
            f"--output-dir {output_dir} holds {', '.join(foreign[:3]) or 'a file'}: give an empty folder"
        )
    model, config = open_export(export)
    try:
        with unfinished(output_dir) as folder:
            plain = _write_plain(model, config, folder)
            save_weights(model.state_dict(), folder / WHOLE, config)
            branch = full_branch(revision)
            at = "" if revision == "main" else f"@{revision}"
            place = Place(
                f"hf-hub:{repo_id}@{branch}", f"hf-hub:{repo_id}{at}" if plain else None, repo_id, branch
            )
            shown = config.get("metrics") if metrics is None else metrics
            card = render_card(model, record, metrics=shown, place=place, dataset=dataset, license=license)
            (folder / FULL).mkdir()
            for name in (CONFIG, WEIGHTS, HEADS):
                if (export / name).exists():
                    shutil.copy(export / name, folder / FULL)
            for face in (folder, folder / FULL):
                write_text(face / README, card)
            shutil.rmtree(output_dir, ignore_errors=True)
            os.replace(folder, output_dir)
    except OSError as error:
        raise UserError(f"--output-dir {output_dir} cannot be written: {error.strerror or error}") from error
    return output_dir


def _write_plain(model: nn.Module, config: dict[str, Any], folder: Path) -> bool:
    """Write config.json and model.safetensors of plain timm; False if timm lacks the backbone."""
    args = config.get("model_args", {})
    backbone = backbone_of(config["architecture"], args).split(".")[0]
    if not timm.is_model(backbone):
        return False
    timm_args = {k: v for k, v in args.items() if k not in HEAD_ARGS}
    plain = {k: v for k, v in config.items() if k != "metrics"}
    plain.update(architecture=backbone, model_args=timm_args)
    write_text(folder / CONFIG, json.dumps(plain, indent=2, allow_nan=False) + "\n")
    save_tensors(split_heads(model.state_dict())[0], folder / WEIGHTS, {"format": "pt"})
    with torch.random.fork_rng(devices=[]):
        bare = timm.create_model(backbone, num_classes=config.get("num_classes", 0), **timm_args)
    bare.load_state_dict(load_file(folder / WEIGHTS))  # strict: what timm would miss is an error here
    return True


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
