"""The one size at which a data set's images are held as tensors until a view is cropped from them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image as PILImage
from tqdm import tqdm

from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.table import ImageTable

# Canvas side over the side of a view: room for crops of an area down to 1/1.5² at full detail.
_HEADROOM = 1.5
PROBES = 64
_CHUNK = 64  # images that a thread decodes at a time


class Batch(NamedTuple):
    """Images at canvas size, with what is needed to crop and to label them."""

    images: torch.Tensor  # uint8 (B, 3, H, W), on an accelerator if the store lies there
    # int64 (B, 2), always on the CPU: the original (height, width) of each, before it was fitted to the canvas
    sizes: torch.Tensor
    indices: torch.Tensor  # int64 (B,): positions in the store; `store.rows[indices]` are rows of the table


class Decoded(NamedTuple):
    """The images of a table decoded to one canvas size."""

    pixels: np.ndarray  # uint8 (M, 3, H, W), in memory or mapped from a file
    sizes: np.ndarray  # int64 (M, 2), the original (height, width)
    failed: list[BadImage]  # the corrupt ones, whose pixels mean nothing


def canvas_size(table: ImageTable, image_size: int) -> tuple[int, int]:
    """(H, W) in pixels for images from which views of `image_size` pixels are cropped.

    The images' own size when the first 64 readable ones share it and neither side exceeds 1.5·image_size:
    such data are never resampled. Otherwise a square of 1.5·image_size, rounded up to a multiple of 8.
    """
    return choose_canvas(range(min(len(table), PROBES)), table.size, image_size)


def choose_canvas(images: Iterable, size: Callable[..., tuple[int, int]], image_size: int) -> tuple[int, int]:
    """See `canvas_size`, for any images of which `size(image)` tells (height, width) or raises BadImage."""
    sizes = set()
    for image in images:
        try:
            sizes.add(size(image))
        except BadImage:
            continue
    if len(sizes) == 1 and max(next(iter(sizes))) <= _HEADROOM * image_size:
        return sizes.pop()
    side = int(np.ceil(_HEADROOM * image_size / 8)) * 8
    return side, side


def decode_all(table: ImageTable, pixels: np.ndarray, *, workers: int, progress: bool) -> Decoded:
    """Decode the M images of a table into `pixels` (M, 3, H, W) uint8.

    Threads do it, not processes: processes would have to send the pixels, and of all but tiny images Pillow decodes
    several at once.
    """
    canvas, sizes = pixels.shape[2:], np.zeros((len(table), 2), dtype=np.int64)

    def decode_chunk(start: int) -> list[BadImage]:
        failed = []
        for row in range(start, min(start + _CHUNK, len(table))):
            try:
                pixels[row], sizes[row] = read_to_canvas(table, row, canvas)
            except BadImage as error:
                failed.append(error)
        return failed

    failed = []
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        with tqdm(total=len(table), desc="decoding", unit=" images", disable=not progress) as bar:
            for some in pool.map(decode_chunk, range(0, len(table), _CHUNK)):
                failed += some
                bar.update(min(_CHUNK, len(table) - bar.n))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C, not after the whole data set
    return Decoded(pixels, sizes, failed)


def read_to_canvas(
    table: ImageTable, row: int, canvas: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """(uint8 (3, H, W) at the `canvas` size, original (height, width)); raises BadImage."""
    image, size = table.read_with_size(row, canvas)
    return fit_to_canvas(image, canvas), size


def fit_to_canvas(image: PILImage, canvas: tuple[int, int]) -> np.ndarray:
    """uint8 (3, H, W) at the `canvas` size.

    An image of another size is resized with antialiasing, its aspect not kept: the original size travels
    with it, and the crop sampler undoes the distortion when it chooses a crop's shape.
    """
    pixels = np.array(image)
    if pixels.shape[:2] == canvas:
        return pixels.transpose(2, 0, 1)
    # By torch, whose bicubic filter is Pillow's to a rounding: a third of its time, which was more than decoding took.
    wide = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    return F.interpolate(wide, canvas, mode="bicubic", antialias=True)[0].numpy()
