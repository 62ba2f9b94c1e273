"""From a configuration to tensors: the file is found, checked and read without pickle wherever it is safetensors."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors import SafetensorError, safe_open
from timm.models import load_pretrained
from torch import Tensor, nn

from vissl_zoo.errors import first_line
from vissl_zoo.models.pretrained_cfg import has_source, no_weights, row_of
from vissl_zoo.models.representation import HEAD_PREFIXES
from vissl_zoo.weights import sha256_of

HEADER = "vissl_zoo"
"""Key of the safetensors header under which an export keeps architecture and arguments, as JSON."""

WEIGHTS = "model.safetensors"


class Checkpoint(NamedTuple):
    """What a file of weights holds."""

    weights: dict[str, Tensor]  # by name, float32 where the file has half precision
    args: dict[str, Any]  # of the model, as the file's header says; empty for files of others
    where: str  # the file or the repository, for messages


def read_weights(cfg: dict[str, Any], cache_dir: str | Path | None = None) -> Checkpoint:
    """Read what a timm pretrained configuration points at: file, folder, Hub repository, URL or dict.

    Raises:
        RuntimeError: the configuration names no weights, or they are absent, damaged or unreadable: one line
            that names the file.
    """
    if not has_source(cfg):
        raise RuntimeError(no_weights(cfg.get("architecture") or "this model"))
    row = row_of(cfg)
    if row is not None:
        row.verify()
    path = _safetensors_file(cfg, cache_dir)
    if path is None:
        where = str(cfg.get("file") or cfg.get("url") or "the weights")
        return Checkpoint(unwrapped(_finite(_by_timm(cfg, cache_dir), where)), {}, where)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {key: _single(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (no mapping)
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    except (
        SafetensorError,
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # the last of a header nested too deep
        raise RuntimeError(f"{path} cannot be read as safetensors: {first_line(error)}") from error
    args = header.get("model_args", {}) if isinstance(header, dict) else None
    if not isinstance(args, dict):
        raise RuntimeError(f"{path}: {HEADER!r} in its header is no record of a model")
    return Checkpoint(unwrapped(_finite(weights, str(path))), args, str(path))


def _finite(weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights as they are; a training that diverged, or a damaged file, would give NaN for every image."""
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise RuntimeError(f"{where} holds NaN or infinite numbers, in {key}")
    return weights


def unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the keys of the bare model, where a wrapper has put its prefix before them.

    `module.` (DistributedDataParallel) and `_orig_mod.` (torch.compile) go wherever they lead, also stacked. `model.`
    and `backbone.` could be names of a model's own, and go where every key of the trunk has the prefix.
    """
    weights = {re.sub(r"^((module|_orig_mod)\.)+", "", key): value for key, value in weights.items()}
    for prefix in ("model.", "backbone."):
        trunk = [key for key in weights if not key.startswith(HEAD_PREFIXES)]
        if trunk and all(key.startswith(prefix) for key in trunk):
            return unwrapped({key.removeprefix(prefix): value for key, value in weights.items()})
    return weights


def _safetensors_file(cfg: dict[str, Any], cache_dir: str | Path | None) -> Path | None:
    """The safetensors file that `cfg` means, downloaded if need be; None for a dict, a URL or another format."""
    source, file = cfg.get("source"), cfg.get("file")
    if source == "local-dir":  # an export also holds heads.safetensors, which older timm trips over
        path = Path(str(file)) / WEIGHTS
        return path if path.exists() else None
    if source != "hf-hub":
        if cfg.get("state_dict"):
            return None
        if file:
            return Path(file) if str(file).endswith(".safetensors") else None
    return _from_hub(cfg, cache_dir) if cfg.get("hf_hub_id") else None


def _from_hub(cfg: dict[str, Any], cache_dir: str | Path | None) -> Path:
    """Download (or find in the cache) the weights of a Hub repository, and check them.

    Not by timm, whose older versions read a file that is asked for by name as a pickle.
    """
    repo_id, _, revision = cfg["hf_hub_id"].partition("@")
    filename = cfg.get("hf_hub_filename") or WEIGHTS
    if not filename.endswith(".safetensors"):
        raise RuntimeError(f"hf_hub_filename={filename!r} is no safetensors file, and no other kind is read")
    try:
        found = hf_hub_download(repo_id, filename, revision=revision or None, cache_dir=cache_dir)
    except (HfHubHTTPError, EntryNotFoundError, OSError, ValueError) as error:
        raise RuntimeError(f"{filename} of {cfg['hf_hub_id']} cannot be had: {first_line(error)}") from error
    _check_blob(Path(found))
    return Path(found)


def _check_blob(path: Path) -> None:
    """Compare a file of the Hub cache with the sha256 that the cache files it under.

    huggingface_hub compares sizes alone, so a file that was damaged on its way or on the disk would load. Large
    files are filed under their sha256, others (and systems without links) under nothing that could be checked.
    """
    if not path.is_symlink():
        return
    # The first link alone: a blob can itself be a link, to one that is named after another kind of hash.
    blob = Path(os.readlink(path))
    if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", blob.name):
        return
    if sha256_of(path) != blob.name:
        raise RuntimeError(
            f"{path} is damaged: its content has not the sha256 {blob.name}; delete it and load again"
        )


def _by_timm(cfg: dict[str, Any], cache_dir: str | Path | None) -> dict[str, Tensor]:
    """Let timm read the rest; a filter takes the tensors before they meet a model."""
    weights: dict[str, Tensor] = {}

    def take(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        weights.update({key: _single(value) for key, value in state_dict.items()})
        return {}

    cfg = {**cfg, "first_conv": None, "classifier": None, "custom_load": False}
    load_pretrained(nn.Module(), cfg, filter_fn=take, strict=False, cache_dir=cache_dir)
    return weights


def _single(value: Tensor) -> Tensor:
    """Half precision becomes float32, so that timm's sums over input channels are not rounded again."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
