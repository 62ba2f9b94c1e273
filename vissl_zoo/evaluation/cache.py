"""Features on disk, under the hash of the model and the fingerprint of the images: extracted once, used by all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from vissl_zoo.data import ImageStore, ImageTable
from vissl_zoo.evaluation.features import Features, extract


def cache_folder() -> Path:
    """`$VISSL_ZOO_CACHE`, by default vissl_zoo in the user's cache folder."""
    if named := os.environ.get("VISSL_ZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vissl_zoo"


def model_hash(model: nn.Module) -> str:
    """Sixteen hex digits of the SHA-256 of all parameters and buffers, with their names."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def cached_features(
    model: nn.Module, table: ImageTable, store: ImageStore, image_size: int, *, progress: str | None
) -> Features:
    """`extract`, or what it gave the last time for this model, these images and this size."""
    rows = hashlib.sha256(store.rows.tobytes()).hexdigest()[:8]
    fingerprint = hashlib.sha256(f"{table.fingerprint}-{table.split}".encode()).hexdigest()[:16]
    path = cache_folder() / "features" / f"{model_hash(model)}-{fingerprint}-{rows}-{image_size}.safetensors"
    try:
        return Features(**{"kappa": None, "uncertainty": None, **load_file(path)})
    except (OSError, SafetensorError, TypeError):
        pass  # not there, or cut off by a crash: made anew
    features = extract(model, store, image_size, progress=progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    kept = {k: np.ascontiguousarray(v) for k, v in features._asdict().items() if v is not None}
    save_file(kept, unfinished)
    os.replace(unfinished, path)
    return features
