"""Images from anywhere: opened without decoding, decoded without surprises, kept as uint8 canvases."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vissl_zoo.data.canvas import Batch, canvas_size
    from vissl_zoo.data.canvas_cache import cache_folder
    from vissl_zoo.data.decode import BadImage, default_workers, open_image
    from vissl_zoo.data.slices import split_name
    from vissl_zoo.data.store import ImageStore, open_store
    from vissl_zoo.data.stream import ImageStream, open_stream
    from vissl_zoo.data.table import ImageTable, available_splits, open_images

__all__ = [
    "BadImage",
    "Batch",
    "ImageStore",
    "ImageStream",
    "ImageTable",
    "available_splits",
    "cache_folder",
    "canvas_size",
    "default_workers",
    "open_image",
    "open_images",
    "open_store",
    "open_stream",
    "split_name",
]
# The names of each file, loaded on first use: to open one image takes neither torch nor `datasets`.
_FILES = {
    "canvas": ("Batch", "canvas_size"),
    "canvas_cache": ("cache_folder",),
    "decode": ("BadImage", "default_workers", "open_image"),
    "slices": ("split_name",),
    "store": ("ImageStore", "open_store"),
    "stream": ("ImageStream", "open_stream"),
    "table": ("ImageTable", "available_splits", "open_images"),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
