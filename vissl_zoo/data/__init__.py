"""Images from anywhere: opened without decoding, decoded without surprises, kept as uint8 canvases."""

from typing import TYPE_CHECKING

from vissl_zoo.lazy import load_on_demand

if TYPE_CHECKING:
    from vissl_zoo.data.canvas import Batch, canvas_size
    from vissl_zoo.data.canvas_cache import cache_folder
    from vissl_zoo.data.decode import BadImage, default_workers, open_image
    from vissl_zoo.data.store import ImageStore, open_store
    from vissl_zoo.data.stream import ImageStream, open_stream
    from vissl_zoo.data.table import ImageTable, available_splits, open_images, split_name

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
# On first use: to open one image takes neither torch nor `datasets`.
__getattr__, __dir__ = load_on_demand(
    __name__,
    {
        "canvas": ("Batch", "canvas_size"),
        "canvas_cache": ("cache_folder",),
        "decode": ("BadImage", "default_workers", "open_image"),
        "store": ("ImageStore", "open_store"),
        "stream": ("ImageStream", "open_stream"),
        "table": ("ImageTable", "available_splits", "open_images", "split_name"),
    },
)
