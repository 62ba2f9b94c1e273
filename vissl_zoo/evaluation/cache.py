"""Features on disk, under the hash of the model and the fingerprint of the images: extracted once, used by all."""

from __future__ import annotations

import hashlib
import logging
import os

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from vissl_zoo.data import ImageTable, cache_folder
from vissl_zoo.evaluation.features import Features, statistics
from vissl_zoo.evaluation.represent import extract_rows

EXTRACTION = 2  # to be raised when `extract_rows` comes to see the images in another way
__all__ = ["cache_folder", "cached_features", "model_hash"]
_logger = logging.getLogger(__name__)


def model_hash(model: nn.Module) -> str:
    """Sixteen hex digits of the SHA-256 of the architecture and of all parameters and buffers.

    The printed modules are part of it: two models may share every tensor and differ in an activation or in d.
    """
    digest = hashlib.sha256(f"{model!r} {statistics(model)}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def cached_features(
    model: nn.Module,
    table: ImageTable,
    image_size: int,
    *,
    rows: np.ndarray | None = None,
    exact: bool = False,
    workers: int | None = None,
    progress: str | None = None,
) -> Features:
    """`extract_rows`, or what it gave the last time for this model, these images and this size.

    Features in plain float32 (`exact`) and fast ones are kept apart. Arguments as for `extract_rows`.

    Raises:
        UserError: the model's output is not finite, or not one image can be read.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    asked = hashlib.sha256(rows.tobytes()).hexdigest()[:8]
    fingerprint = hashlib.sha256(f"{table.fingerprint}-{table.split}".encode()).hexdigest()[:16]
    kind = "exact" if exact else "fast"
    path = (
        cache_folder()
        / "features"
        / f"{model_hash(model)}-{fingerprint}-{asked}-{image_size}-{kind}-v{EXTRACTION}.safetensors"
    )
    try:
        return Features(**{"kappa": None, "uncertainty": None, **load_file(path)})
    except (OSError, SafetensorError, TypeError):
        pass  # not there, or cut off by a crash: made anew
    features = extract_rows(model, table, image_size, rows, exact=exact, workers=workers, progress=progress)
    kept = {k: np.ascontiguousarray(v) for k, v in features._asdict().items() if v is not None}
    unfinished = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(kept, unfinished)
        os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:  # the features are good all the same
        _logger.warning("features are not cached in %s: %s", path.parent, error)
    return features
