"""Gaussian blur of a whole batch, each image with a standard deviation of its own."""

import torch
from torch import Tensor

BLOCK = 32  # rows of a product: wide enough for full speed, narrow enough to skip most zeros of the band


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Separable Gaussian blur with reflected borders: images (B, C, s, s), sigma (B,) > 0 in pixels.

    The window is 2·radius + 1 pixels wide, or 2s - 1 where that is narrower, because a reflected border is
    not defined beyond.
    """
    blurred = torch.empty_like(images)
    blur_planes(images.transpose(0, 1), sigma.to(images.dtype), radius, blurred.transpose(0, 1))
    return blurred


def blur_planes(planes: Tensor, sigma: Tensor, radius: int, out: Tensor) -> None:
    """`gaussian_blur` of planes (C, n, s, s) into `out`, of the same shape.

    Each axis is a product with a band matrix; only blocks along the band are computed. (Tried on a CPU: depthwise
    convolution takes as long, and at first use of each batch size far longer.)
    """
    size = planes.shape[-1]
    radius = min(radius, size - 1)
    matrix = blur_matrix(sigma, size, radius)
    transposed = matrix.transpose(1, 2)
    blocks = [
        (slice(i, i + BLOCK), slice(max(i - radius, 0), min(i + BLOCK + radius, size)))
        for i in range(0, size, BLOCK)
    ]
    for plane, blurred in zip(planes, out, strict=True):
        down = torch.cat([torch.bmm(matrix[:, rows, band], plane[:, band]) for rows, band in blocks], 1)
        torch.cat(
            [torch.bmm(down[..., band], transposed[:, band, rows]) for rows, band in blocks], 2, out=blurred
        )


def blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """The blur of one axis as matrices (B, size, size), for radius < size; every row sums to one."""
    batch, width = len(sigma), size + 2 * radius
    distance = torch.arange(-radius, radius + 1, dtype=sigma.dtype, device=sigma.device)
    taps = torch.exp(-0.5 * (distance / sigma.unsqueeze(1)).square())
    taps = torch.cat([taps / taps.sum(1, keepdim=True), taps.new_zeros(batch, size)], 1)
    # Rows of `width + 1` numbers, read again as rows of `width`: each row lies one step right of the last.
    padded = taps.unsqueeze(1).expand(batch, size, width + 1).reshape(batch, -1)[:, : size * width]
    padded = padded.view(batch, size, width)
    matrix = padded[:, :, radius : radius + size].contiguous()
    if radius:
        matrix[:, :, 1 : radius + 1] += padded[:, :, :radius].flip(2)
        matrix[:, :, -radius - 1 : -1] += padded[:, :, -radius:].flip(2)
    return matrix
