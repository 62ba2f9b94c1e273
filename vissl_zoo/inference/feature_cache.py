"""Features on disk, under the hash of the model and the fingerprint of the images: extracted once, used by all."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from vissl_zoo.data import ImageTable, cache_folder
from vissl_zoo.errors import UserError
from vissl_zoo.inference.embed import Embedded, embed_all
from vissl_zoo.inference.hashing import model_hash
from vissl_zoo.models import Representation
from vissl_zoo.output import write_whole

EXTRACTION = 4  # to be raised when `embed_all` comes to see the images in another way
_logger = logging.getLogger(__name__)


def cached_features(
    model: nn.Module,
    table: ImageTable,
    image_size: int,
    *,
    rows: np.ndarray | None = None,
    exact: bool = False,
    workers: int | None = None,
    progress: str | None = None,
) -> Embedded:
    """`embed_all` of clean central crops, or what it gave the last time for this model, these images and this size.

    Features in plain float32 (`exact`) and fast ones are kept apart. Arguments and errors are those of `embed_all`.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    asked = hashlib.sha256(rows.tobytes()).hexdigest()[:8]
    fingerprint = hashlib.sha256(f"{table.fingerprint}-{table.split}".encode()).hexdigest()[:16]
    kind = "exact" if exact else "fast"
    name = f"{model_hash(model)}-{fingerprint}-{asked}-{image_size}-{kind}-v{EXTRACTION}.safetensors"
    path = cache_folder() / "features" / name
    try:
        kept: Any = load_file(path)
        said = Representation(kept["embedding"], kept.get("kappa"), kept.get("uncertainty"))
        return Embedded(kept["rows"], said, kept["sizes"], [None] * len(kept["rows"]))
    except (OSError, SafetensorError, KeyError):
        pass  # not there, or cut off by a crash: made anew
    features = embed_all(model, table, image_size, rows=rows, exact=exact, workers=workers, progress=progress)
    parts = {"rows": features.rows, "sizes": features.sizes, **features.representation._asdict()}
    kept = {name: np.ascontiguousarray(part) for name, part in parts.items() if part is not None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda unfinished: save_file(kept, unfinished))
    except (OSError, SafetensorError, UserError) as error:  # the features are good all the same
        _logger.warning("features are not cached in %s: %s", path.parent, error)
    return features
