"""Colour jitter and gray levels of a batch, each image with factors and an order of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vissl_zoo.views.draws import OPERATIONS

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, the digits that torchvision uses
CONTRAST, SATURATION, HUE = (OPERATIONS.index(name) for name in ("contrast", "saturation", "hue"))


class Jitter(NamedTuple):
    """What happens to the colours of N images: three blends in their order, and the hue somewhere between them.

    Three of the four operations are one, clamp(f · image + (1 - f) · reference), where the reference is black, the
    mean gray, or the gray image: a matrix of the colours and, for contrast, a share of the mean.
    """

    kind: Tensor  # (N,) uint8: 0 nothing, 1 + the number of blends before the hue, 5 no hue
    matrix: Tensor  # (N, 3, 3, 3): of each blend, from colour to colour
    mean_part: Tensor  # (N, 3): of each blend, how much of the mean gray is added
    turn: Tensor  # (N,): of the hue, in turns of the colour wheel


def jitter_numbers(factors: Tensor, order: Tensor, jitter: Tensor) -> Jitter:
    """The same of all views at once, (V, B, ...); the arguments are those of `ViewDraws`."""
    kind = 1 + (order == HUE).to(torch.uint8).argmax(-1)
    kind[factors[..., HUE] == 0] = 5
    idle = (factors[..., :3] == 1).all(-1) & (kind == 5)
    kind = torch.where(jitter & ~idle, kind, 0)
    blends = order[order != HUE].view(*kind.shape, 3)
    factor = factors.gather(-1, blends)
    gray_part = torch.where(blends == SATURATION, 1 - factor, 0.0)[..., None, None] * factor.new_tensor(LUMA)
    matrix = factor[..., None, None] * torch.eye(3) + gray_part
    return Jitter(kind, matrix, torch.where(blends == CONTRAST, 1 - factor, 0.0), factors[..., HUE])


def jitter_colours(images: Tensor, jitter: Jitter) -> None:
    """Brightness, contrast, saturation and hue, in the order of each image; in place.

    images (N, 3, H, W) floating in [0, 1], sorted by `jitter.kind`, which lies on the CPU; the rest of it on theirs.

    The hue is the dear one, so it is computed once for all, and the blends move around it: step k takes the images
    that have more than k blends before their hue, and after it those that have not. In the order of `kind` these are
    slices: nothing is gathered or put back.
    """
    pixels, weights = images.flatten(2), images.new_tensor(LUMA)
    start = torch.searchsorted(jitter.kind, torch.arange(1, 6, dtype=jitter.kind.dtype)).tolist() + [
        len(images)
    ]
    for step in range(3):
        _blend(pixels, weights, jitter, step, slice(start[step + 1], None))
    shift_hue(pixels[start[0] : start[4]], jitter.turn[start[0] : start[4]])
    for step in range(3):
        _blend(pixels, weights, jitter, step, slice(start[0], start[step + 1]))


def _blend(pixels: Tensor, weights: Tensor, jitter: Jitter, step: int, part: slice) -> None:
    """In place clamp(matrix · colours + mean_part · mean gray) on a slice of the images (N, 3, pixels)."""
    pixels = pixels[part]
    if len(pixels):
        means = pixels.mean(2) @ weights
        summand = (means * jitter.mean_part[part, step]).view(-1, 1, 1)
        torch.clamp(torch.baddbmm(summand, jitter.matrix[part, step], pixels), 0, 1, out=pixels)


def shift_hue(pixels: Tensor, turn: Tensor) -> None:
    """Turn the colour wheel in place: pixels (n, 3, ...) in [0, 1], turn (n,) from -0.5 to 0.5.

    Equal to the way by HSV and back (Smith, "Color gamut transform pairs", 1978) without its case
    distinctions. Value and chroma stay as they are; the hue h runs from 0 to 1, red 0, green 1/3, blue 2/3.
    A channel is min + chroma · clamp(2 - 6 d, 0, 1), d the distance on the wheel from h to the channel's own
    hue. Solved for the distance to red, 6 d = 1 + (G + B - R - min) / chroma, and h lies on green's side where
    G > B. (Tried: `torch.where` over the six sectors, four times slower on a CPU.)
    """
    if not len(pixels):
        return
    red, green, blue = pixels.unbind(1)
    low = torch.minimum(red, green)
    low = torch.minimum(low, blue, out=low)
    high = torch.maximum(red, green)
    high = torch.maximum(high, blue, out=high)
    chroma = high - low
    hue = (green + blue).sub_(red).sub_(low)
    # Of a gray pixel 0 / tiny: any hue will do.
    hue.div_(chroma.clamp_min(torch.finfo(pixels.dtype).tiny)).add_(1).copysign_(green - blue)
    hue = torch.add(turn.view(-1, *[1] * (hue.ndim - 1)), hue, alpha=1 / 6)
    hue.sub_(hue.floor())
    # On [0, 1) the level clamp(6 |h - 1/2| - 1) for red, 1 - clamp(6 |h - 1/3| - 1) and 1 - clamp(6 |h - 2/3| - 1).
    for plane, centre in zip((red, green, blue), (1 / 2, 1 / 3, 2 / 3), strict=True):
        torch.sub(hue, centre, out=plane)
    pixels.abs_().sub_(1 / 6).clamp_(0, 1 / 6)
    torch.addcmul(low, chroma, red, value=6, out=red)
    for plane in (green, blue):
        torch.addcmul(high, chroma, plane, value=-6, out=plane)


def luma(images: Tensor) -> Tensor:
    """The gray level of images (N, 3, ...): (N, ...), 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = images.unbind(1)
    return torch.mul(red, LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
