"""Four ways to spoil an image, at five levels each, made on the spot.

Blur, noise and JPEG quality are those of ImageNet-C (Hendrycks and Dietterich, "Benchmarking neural network robustness
to common corruptions and perturbations", 2019) in kind; the levels are ours, about a doubling from one to the next, so
that they serve images of any size. The noise and the place of the occlusion belong to an image and are the same at
every level: only the severity changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vissl_zoo.views import IMAGENET_MEAN
from vissl_zoo.views.blur import gaussian_blur

LEVELS = 5
BLUR_SIGMA = (1 / 224, 2 / 224, 4 / 224, 8 / 224, 16 / 224)  # of the side: 1 to 16 pixels of 224
NOISE_STD = (0.02, 0.04, 0.08, 0.16, 0.32)  # of the range from black to white
OCCLUDED_AREA = (0.05, 0.1, 0.2, 0.4, 0.6)
JPEG_QUALITY = (50, 30, 20, 10, 5)


def blur(images: Tensor, level: int, rngs: list[np.random.Generator]) -> Tensor:
    """Gaussian blur."""
    side = images.shape[-1]
    sigma = BLUR_SIGMA[level] * side
    return gaussian_blur(images, images.new_full((len(images),), sigma), radius=int(np.ceil(4 * sigma)))


def noise(images: Tensor, level: int, rngs: list[np.random.Generator]) -> Tensor:
    """Gaussian noise of every pixel and channel."""
    pattern = np.stack([rng.standard_normal(images.shape[1:], dtype=np.float32) for rng in rngs])
    return (images + NOISE_STD[level] * torch.from_numpy(pattern).to(images)).clamp(0, 1)


def occlusion(images: Tensor, level: int, rngs: list[np.random.Generator]) -> Tensor:
    """A square of the mean colour; a higher level's contains a lower level's."""
    side = images.shape[-1]
    extent = max(1, round(side * OCCLUDED_AREA[level] ** 0.5))
    covered = images.clone()
    colour = images.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    for image, rng in zip(covered, rngs, strict=True):
        # Half up and not to even: with one place for all levels, the squares then lie in each other.
        top, left = np.floor(rng.random(2) * (side - extent) + 0.5).astype(int)
        image[:, top : top + extent, left : left + extent] = colour
    return covered


def jpeg(images: Tensor, level: int, rngs: list[np.random.Generator]) -> Tensor:
    """JPEG compression."""
    levels = images.mul(255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    decoded = np.stack([_through_jpeg(pixels, JPEG_QUALITY[level]) for pixels in levels])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(images).div_(255)


CORRUPTIONS: dict[str, Callable[[Tensor, int, list[np.random.Generator]], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "occlusion": occlusion,
    "jpeg": jpeg,
}


def corrupt(images: Tensor, kind: str, level: int, seeds: np.ndarray) -> Tensor:
    """Spoil a batch of images.

    Args:
        images: (B, 3, s, s) uint8 on any device.
        kind: a key of `CORRUPTIONS`.
        level: 0, the mildest, to 4.
        seeds: (B, 2) integers: an image's own random numbers, the same at every level.

    Returns:
        (B, 3, s, s) float32 in [0, 1].
    """
    rngs = [np.random.default_rng(seed) for seed in seeds]
    return CORRUPTIONS[kind](images.float().div(255), level, rngs)


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """uint8 (s, s, 3) as a decoder gives it back."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
