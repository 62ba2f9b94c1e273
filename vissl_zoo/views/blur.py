"""Gaussian blur of a whole batch, each image with a standard deviation of its own."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import threshold

BLOCK = 64  # rows of a product: wide enough for full speed, narrow enough to skip most zeros of the band


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Separable Gaussian blur with reflected borders: images (B, C, s, s), sigma (B,) > 0 in pixels.

    The window is 2·radius + 1 pixels wide, or 2s - 1 where that is narrower, because a reflected border is
    not defined beyond. Each axis is a product with a band matrix; only blocks along the band are computed.
    """
    size = images.shape[-1]
    radius = min(radius, size - 1)
    matrix = blur_matrix(sigma.to(images.dtype), size, radius)
    transposed = matrix.transpose(1, 2)
    down, blurred = torch.empty_like(images), torch.empty_like(images)
    for first in range(0, size, BLOCK):
        part, band = slice(first, first + BLOCK), slice(max(first - radius, 0), first + BLOCK + radius)
        for channel in range(images.shape[1]):
            torch.bmm(matrix[:, part, band], images[:, channel, band], out=down[:, channel, part])
    down, across = down.flatten(1, 2), blurred.flatten(1, 2)
    for first in range(0, size, BLOCK):
        part, band = slice(first, first + BLOCK), slice(max(first - radius, 0), first + BLOCK + radius)
        torch.bmm(down[:, :, band], transposed[:, band, part], out=across[:, :, part])
    return blurred


def blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """The blur of one axis as matrices (B, size, size), for radius < size; every row sums to one."""
    distance = torch.arange(-radius, radius + 1, device=sigma.device)
    taps = torch.softmax(-0.5 * (distance / sigma.unsqueeze(1)).square(), 1)
    taps = threshold(taps, 1e-15, 0)  # a processor is slow with numbers near the least of all
    return (taps @ _reads(size, radius, sigma.dtype, sigma.device)).view(-1, size, size)


@lru_cache(maxsize=8)
def _reads(size: int, radius: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Which pixel each tap of each output pixel reads, reflected at both ends: (taps, size * size), 0 and 1."""
    distance = torch.arange(-radius, radius + 1, device=device).view(-1, 1)
    pixel = (torch.arange(size, device=device) + distance).abs()
    pixel = (size - 1) - ((size - 1) - pixel).abs()
    return (pixel.unsqueeze(2) == torch.arange(size, device=device)).flatten(1).to(dtype)
