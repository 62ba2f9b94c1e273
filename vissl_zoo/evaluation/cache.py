"""Features on disk, under the hash of the model and the fingerprint of the images: extracted once, used by all."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from vissl_zoo.data import ImageStore, ImageTable
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.features import Features, extract

EXTRACTION = 1  # to be raised when `extract` comes to see the images in another way
_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$VISSL_ZOO_CACHE`, by default vissl_zoo in the user's cache folder."""
    if named := os.environ.get("VISSL_ZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vissl_zoo"


def model_hash(model: nn.Module) -> str:
    """Sixteen hex digits of the SHA-256 of the architecture and of all parameters and buffers.

    The printed modules are part of it: two models may share every tensor and differ in an activation or in d.
    """
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def cached_features(
    model: nn.Module, table: ImageTable, store: ImageStore, image_size: int, *, progress: str | None
) -> Features:
    """`extract`, or what it gave the last time for this model, these images and this size.

    Raises:
        UserError: the model's output is not finite.
    """
    rows = hashlib.sha256(store.rows.tobytes()).hexdigest()[:8]
    fingerprint = hashlib.sha256(f"{table.fingerprint}-{table.split}".encode()).hexdigest()[:16]
    path = (
        cache_folder()
        / "features"
        / f"{model_hash(model)}-{fingerprint}-{rows}-{image_size}-v{EXTRACTION}.safetensors"
    )
    try:
        return Features(**{"kappa": None, "uncertainty": None, **load_file(path)})
    except (OSError, SafetensorError, TypeError):
        pass  # not there, or cut off by a crash: made anew
    features = extract(model, store, image_size, progress=progress)
    kept = {k: np.ascontiguousarray(v) for k, v in features._asdict().items() if v is not None}
    for name, values in kept.items():
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
            raise UserError(f"the model gives a {name} that is not finite for {bad} of {len(values)} images")
    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(kept, unfinished)
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:  # the features are good all the same
        _logger.warning("features are not cached in %s: %s", path.parent, error)
    return features
