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


def jitter_colours(images: Tensor, jitter: Jitter, at_once: int = 2**31) -> None:
    """Brightness, contrast, saturation and hue, in the order of each image; in place.

    The hue is the dear one, so it is computed once for all, and the blends move around it: step k takes the images
    that have more than k blends before their hue, and after it those that have not. In the order of `kind` these are
    slices: nothing is gathered or put back.

    Args:
        images: (N, 3, H, W) floating in [0, 1], sorted by `jitter.kind`.
        jitter: theirs; `kind` lies on the CPU, the rest where the images lie.
        at_once: images that one operation takes: so many that a processor's caches hold them.
    """
    pixels, kinds = images.flatten(2), torch.arange(1, 6, dtype=jitter.kind.dtype)
    start = [*torch.searchsorted(jitter.kind, kinds).tolist(), len(images)]

    def blend(step: int, first: int, stop: int) -> None:
        for i in range(first, stop, at_once):
            part = slice(i, min(i + at_once, stop))
            _blend(pixels[part], jitter.matrix[part, step], jitter.mean_part[part, step])

    for step in range(3):
        blend(step, start[step + 1], len(images))
    for i in range(start[0], start[4], at_once):
        part = slice(i, min(i + at_once, start[4]))
        shift_hue(pixels[part], jitter.turn[part])
    for step in range(3):
        blend(step, start[0], start[step + 1])


def _blend(pixels: Tensor, matrix: Tensor, mean_part: Tensor) -> None:
    """In place clamp(matrix · colours + mean_part · mean gray): pixels (n, 3, P), matrix (n, 3, 3), mean_part (n,)."""
    summand = luma(pixels.mean(2)).mul_(mean_part).view(-1, 1, 1)
    torch.clamp(torch.baddbmm(summand, matrix, pixels), 0, 1, out=pixels)


def shift_hue(pixels: Tensor, turn: Tensor) -> None:
    """Turn the colour wheel in place: pixels (n, 3, ...) in [0, 1], turn (n,) from -0.5 to 0.5.

    Equal to the way by HSV and back (Smith, "Color gamut transform pairs", 1978) without its case
    distinctions. Value and chroma stay as they are; the hue h runs from 0 to 1, red 0, green 1/3, blue 2/3.
    A channel is min + chroma · clamp(2 - 6 d, 0, 1), d the distance on the wheel from h to the channel's own
    hue. Solved for the distance to red, 6 d = 1 + (G + B - R - min) / chroma, and h lies on green's side where
    G > B. (Tried: `torch.where` over the six sectors, four times slower on a CPU.)
    """
    red, green, blue = pixels.unbind(1)
    low = torch.minimum(red, green)
    low = torch.minimum(low, blue, out=low)
    high = torch.maximum(red, green)
    high = torch.maximum(high, blue, out=high)
    chroma = high - low
    hue = (green + blue).sub_(red).sub_(low)
    # Of a gray pixel 0 / tiny: any hue will do.
    safe = chroma.clamp_min(torch.finfo(pixels.dtype).tiny)
    torch.addcdiv(pixels.new_ones(()), hue, safe, out=hue).copysign_(torch.sub(green, blue, out=safe))
    whole = 1 + turn.view(-1, *[1] * (hue.ndim - 1))  # a turn more, so that nothing is below zero
    torch.add(whole, hue, alpha=1 / 6, out=hue).frac_()
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
