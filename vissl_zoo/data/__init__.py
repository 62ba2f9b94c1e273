"""Images from anywhere: opened without decoding, decoded without surprises, kept as uint8 canvases."""

from vissl_zoo.data.base import Batch, ImageStore
from vissl_zoo.data.cache import cache_folder
from vissl_zoo.data.canvas import canvas_size
from vissl_zoo.data.decode import BadImage, default_workers, open_image, to_rgb
from vissl_zoo.data.slices import split_name
from vissl_zoo.data.store import open_store
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
    "to_rgb",
]
