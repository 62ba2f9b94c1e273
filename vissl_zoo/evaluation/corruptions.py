"""Four ways to spoil an image, at five levels each, made on the spot.

Blur, noise and JPEG quality are those of ImageNet-C (Hendrycks and Dietterich, "Benchmarking neural network robustness
to common corruptions and perturbations", 2019) in kind. The levels are ours, about a doubling from one to the next, so
that they serve images of any size. The noise and the place of the occlusion belong to an image and are the same at
every level: only the severity changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from vissl_zoo.inference import CentralCrop
from vissl_zoo.views import IMAGENET_MEAN

LEVELS = 5
BLUR_SIGMA = (1 / 224, 2 / 224, 4 / 224, 8 / 224, 16 / 224)  # of the side: 1 to 16 pixels of 224
NOISE_STD = (0.02, 0.04, 0.08, 0.16, 0.32)  # of the range from black to white
OCCLUDED_AREA = (0.05, 0.1, 0.2, 0.4, 0.6)
JPEG_QUALITY = (50, 30, 20, 10, 5)


def blur(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_SIGMA[level] * len(image))))


def noise(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of every pixel and channel."""
    pattern = rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(image + 255 * NOISE_STD[level] * pattern).clip(0, 255).astype(np.uint8)


def occlusion(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A square of the mean colour; a higher level's contains a lower level's."""
    side, covered = len(image), image.copy()
    extent = max(1, round(side * OCCLUDED_AREA[level] ** 0.5))
    # Half up and not to even: with one place for all levels, the squares then lie in each other.
    top, left = np.floor(rng.random(2) * (side - extent) + 0.5).astype(int)
    covered[top : top + extent, left : left + extent] = np.rint(255 * np.array(IMAGENET_MEAN))
    return covered


def jpeg(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG compression."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[level])
    return np.asarray(Image.open(buffer))


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "occlusion": occlusion,
    "jpeg": jpeg,
}
"""(image uint8 (s, s, 3), level from 0, the mildest, to 4, the image's own random numbers) -> the image spoilt."""


class CorruptedViews:
    """All levels of all corruptions of the central crop, one corruption after the other: views for `embed`."""

    count, of_crop = len(CORRUPTIONS) * LEVELS, True

    def __init__(self, crop: CentralCrop, seed: int):
        self._crop, self._seed = crop, seed

    def __call__(self, pixels: Tensor, sizes: Tensor, rows: np.ndarray) -> list[Tensor]:
        """See `Views`."""
        images = pixels.permute(0, 2, 3, 1).cpu().numpy()
        spoilt = [self.pixels(image, int(row)) for image, row in zip(images, rows, strict=True)]
        views = torch.from_numpy(
            np.stack([np.concatenate(list(levels.values())) for levels in spoilt], axis=1)
        )
        return [self._crop.normalise(view.permute(0, 3, 1, 2).to(pixels.device)) for view in views]

    def pixels(self, image: np.ndarray, row: int) -> dict[str, np.ndarray]:
        """Each corruption of an image uint8 (s, s, 3) of the table, (5, s, s, 3)."""
        return {
            kind: np.stack(
                [spoil(image, level, np.random.default_rng((self._seed, row))) for level in range(LEVELS)]
            )
            for kind, spoil in CORRUPTIONS.items()
        }
