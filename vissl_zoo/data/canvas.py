"""The one size at which a data set's images are held as tensors until a view is cropped from them."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image as PILImage

from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.table import ImageTable

_HEADROOM = (
    1.5  # canvas side over the side of a view: room for crops of an area down to 1/1.5² at full detail
)
PROBES = 64


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
    # By torch, whose bicubic filter is Pillow's (0.03 gray levels apart on average): 0.45 ms for a photo to 336 px
    # where Pillow takes 1.5, which was more than decoding it. (Tried: simplejpeg in place of Pillow's `draft` decodes
    # at best a fifth faster; with the resize that is nothing.)
    wide = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    return F.interpolate(wide, canvas, mode="bicubic", antialias=True)[0].numpy()
