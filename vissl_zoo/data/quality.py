"""What the pixels alone say of a photo: brightness, contrast and sharpness, and the words for what is wrong with them.

κ is blind to blank and blurred photos, whose views agree. All is measured on a grey thumbnail of what the model sees,
so that it does not depend on a photo's size. The thresholds flag strong damage and hardly a photo of 700 (see
docs/photos.md).
"""

from __future__ import annotations

from math import ceil, floor
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 80  # pixels of the thumbnail, which is square; smaller photos are taken as they are
DARK, BRIGHT = 0.12, 0.86
BLANK = 0.04
BLURRED = 0.31
SHORTEST, MOST_OBLONG = 16, 4.0  # pixels of the short side; the long side over it
ISSUES = ("dark", "bright", "blank", "blurred", "odd size")


class Quality(NamedTuple):
    """Of one photo.

    Attributes:
        brightness: mean grey level, from 0 (black) to 1 (white).
        contrast: standard deviation of the grey levels, from 0 to 0.5.
        sharpness: standard deviation of the Laplacian over that of the grey levels (after Pech-Pacheco et al., 2000,
            who take its variance alone, which grows with the contrast); 0 of a blank photo, 8 of a chessboard.
    """

    brightness: float
    contrast: float
    sharpness: float


def measure(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> Quality:
    """The quality of an image of any mode that Pillow turns to grey.

    Args:
        image: of any size.
        box: (left, top, right, bottom) in its pixels of the part to look at; by default all.
    """
    left, top, right, bottom = box or (0, 0, *image.size)
    side = max(1, min(SIDE, round(right - left), round(bottom - top)))
    # Grey last, but for the little that is left: Pillow takes longer to turn a photo grey than to make it smaller.
    whole = floor(left), floor(top), min(ceil(right), image.width), min(ceil(bottom), image.height)
    small = image.reduce(max(1, int(min(right - left, bottom - top)) // side), whole).convert("L")
    small = small.resize((side, side), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.float32) / 255
    brightness, contrast = _mean_and_deviation(grey)
    inner = grey[1:-1, 1:-1]
    if contrast <= 1 / 255 or not inner.size:
        return Quality(brightness, contrast, 0.0)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return Quality(brightness, contrast, _mean_and_deviation(4 * inner - around)[1] / contrast)


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    # Half the time of `values.mean()` and `values.std()`, which finds the mean again.
    mean = values.mean()
    off = values - mean
    return float(mean), float(np.sqrt(np.vdot(off, off) / off.size))


def issues(quality: Quality, width: int, height: int) -> str:
    """The words of `ISSUES` that hold, with commas; "" where none does or nothing is known (NaN)."""
    blank = quality.contrast < BLANK
    short, long = sorted((width, height))
    holds = (
        quality.brightness < DARK,
        quality.brightness > BRIGHT,
        blank,
        quality.sharpness < BLURRED and not blank,
        0 < short < SHORTEST or long > MOST_OBLONG * short,
    )
    return ", ".join(word for word, held in zip(ISSUES, holds, strict=True) if held)
