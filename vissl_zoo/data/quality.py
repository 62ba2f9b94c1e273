"""What the pixels alone say of a photo: brightness, contrast and sharpness, and the words for what is wrong with them.

κ is blind to blank and blurred photos, whose views agree. All is measured on a grey thumbnail of 96 pixels, so that it
does not depend on a photo's size. The thresholds flag strong damage and hardly a photo of 700 (see docs/photos.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 96  # pixels of the thumbnail's short side; smaller photos are taken as they are
DARK, BRIGHT = 0.12, 0.88
BLANK = 0.03
BLURRED = 0.15
SHORTEST, MOST_OBLONG = 16, 4.0  # pixels of the short side; the long side over it
ISSUES = ("dark", "bright", "blank", "blurred", "odd size")


class Quality(NamedTuple):
    """Of one photo.

    Attributes:
        brightness: mean grey level, from 0 (black) to 1 (white).
        contrast: standard deviation of the grey levels, from 0 to 0.5.
        sharpness: standard deviation of the Laplacian over that of the grey levels (after Pech-Pacheco et al., 2000,
            who take its variance alone, which grows with the contrast); 0 of a blank photo, below 5 of any.
    """

    brightness: float
    contrast: float
    sharpness: float


def measure(image: Image.Image) -> Quality:
    """The quality of an image of any mode that Pillow turns to grey."""
    scale = min(1.0, SIDE / min(image.size))
    size = [max(1, round(scale * side)) for side in image.size]
    small = image.convert("L").resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    grey = np.asarray(small, dtype=np.float32) / 255
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    contrast = float(grey.std())
    sharpness = float((4 * inner - around).std()) / contrast if contrast > 1 / 255 and inner.size else 0.0
    return Quality(float(grey.mean()), contrast, sharpness)


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
