"""Random resized crops of a batch: where they lie, and how they are cut, resized and mirrored.

The boxes follow torchvision's RandomResizedCrop to the letter (Szegedy et al., "Going deeper with convolutions", 2015,
is the source of the augmentation). The filter is the antialiased bilinear one, another for each view. A row of the
result is a weighted sum of a few rows of the image. `embedding_bag` computes it for a whole batch at once, and only
where a weight is not zero. Rows are summed, the planes are laid on their side, and rows are summed again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


def choose_boxes(
    area: Tensor, aspect: Tensor, position: Tensor, sizes: Tensor, ratio: tuple[float, float]
) -> Tensor:
    """The first attempt that fits inside each image, else the largest central crop of an allowed ratio.

    area, aspect (..., B, attempts), position (..., B, 2) in [0, 1), sizes (B, 2) height and width in pixels
    -> (..., B, 4) int64: top, left, height, width in pixels of the original.
    """
    sizes = sizes.to(torch.float64)
    height, width = sizes.unbind(-1)
    target = area * (height * width).unsqueeze(-1)
    # numpy's root: torch hands even a small one to MKL's threads, for which a busy machine waits longer than for views.
    squares = torch.stack([target / aspect, target * aspect], -1).numpy()
    tried = torch.from_numpy(np.rint(np.sqrt(squares)))
    fits = ((tried > 0) & (tried <= sizes.unsqueeze(-2))).all(-1)  # (..., B, attempts)
    first = fits.to(torch.uint8).argmax(-1)  # the first of equal maxima
    chosen = tried.gather(-2, first[..., None, None].expand(*first.shape, 1, 2)).squeeze(-2)

    narrow, wide = (width / height) < ratio[0], (width / height) > ratio[1]
    fallback = torch.stack(
        [
            torch.where(narrow, (width / ratio[0]).round().clamp_min(1), height),
            torch.where(wide, (height * ratio[1]).round().clamp_min(1), width),
        ],
        -1,
    )
    found = fits.any(-1, keepdim=True)
    extent = torch.where(found, chosen, fallback)
    room = sizes - extent
    corner = torch.where(found, (position * (room + 1)).floor().minimum(room), (room / 2).floor())
    return torch.cat([corner, extent], -1).to(torch.int64)


class Taps(NamedTuple):
    """A filter of one axis for N views: each of a view's pixels is a weighted sum of a few neighbours."""

    first: Tensor  # (..., size) int64: the first pixel of the image that counts
    weights: Tensor  # (..., size, taps): of the pixels from there on; they sum to one


def taps_needed(boxes: Tensor, canvas: tuple[int, int], size: int) -> tuple[int, int]:
    """How many of a canvas's pixels make one of a view's at most, down and across; boxes (..., 4) on the CPU."""
    most = boxes[..., 2:].flatten(0, -2).amax(0).tolist() if boxes.numel() else canvas
    down, across = (min(math.ceil(2 * max(e / size, 1)), side) for e, side in zip(most, canvas, strict=True))
    return down, across


def crop_taps(
    boxes: Tensor, flip: Tensor, canvas: tuple[int, int], size: int, taps: tuple[int, int]
) -> tuple[Taps, Taps]:
    """The filters down and across that crop boxes, resize them to a square and mirror them.

    boxes (..., 4) floating: top, left, height, width in pixels of a canvas (height, width), fractions allowed;
    flip (...) bool; taps as `taps_needed` gives them. Each axis is scaled by itself, so a canvas that was squashed
    from the original gives the crop its true aspect back.
    """
    top, left, height, width = boxes.unbind(-1)
    down = filter_taps(top, height, canvas[0], size, taps[0])
    return down, filter_taps(left, width, canvas[1], size, taps[1], flip)


def crop_sideways(images: Tensor, index: Tensor, down: Taps, across: Taps) -> Tensor:
    """Crops of images[index], resized and mirrored, and lying on their side: (n, 3, size, size), x before y.

    images (B, 3, H, W) floating; index (n,) int64; the filters are of n views. Everything lies on one device.
    """
    height, width = images.shape[2:]
    plane = 3 * index.unsqueeze(1) + torch.arange(3, device=index.device)  # (n, 3)
    rows = _sum_rows(images.reshape(-1, width), plane * height, down)  # (3n * size, width)
    size = down.first.shape[-1]
    rows = rows.view(-1, size, width).transpose(1, 2).reshape(-1, size)
    plane = torch.arange(plane.numel(), device=index.device).view_as(plane)
    return _sum_rows(rows, plane * width, across).view(-1, 3, size, size)


def filter_taps(
    start: Tensor, extent: Tensor, length: int, size: int, taps: int, flip: Tensor | None = None
) -> Taps:
    """The filter on one axis of `length` pixels, `taps` of which are enough for every box.

    The box [start, start + extent) of each view, both (...), is resampled to `size` pixels with a triangle of
    half-width max(extent / size, 1). As in a crop before a resize, no weight lies outside the box; a pixel
    that the box covers in part counts for that part.
    """
    start, extent = start.unsqueeze(-1), extent.unsqueeze(-1)
    reach = (extent / size).clamp_min(1)
    target = torch.arange(0.5, size, dtype=start.dtype, device=start.device)
    if flip is not None:
        target = torch.where(flip.unsqueeze(-1), size - target, target)
    centre = start + target * (extent / size)
    first = (centre - reach + 0.5).floor_().clamp_(0, length - taps)
    pixel = first.unsqueeze(-1) + torch.arange(taps, dtype=start.dtype, device=start.device)
    centre, reach, start, extent = (x.unsqueeze(-1) for x in (centre, reach, start, extent))
    inside = torch.minimum(pixel + 1, start + extent).sub_(torch.maximum(pixel, start)).clamp_(0, 1)
    weights = (pixel + 0.5).sub_(centre).abs_().div_(reach).neg_().add_(1).clamp_min_(0).mul_(inside)
    return Taps(first.long(), weights.div_(weights.sum(-1, keepdim=True)))


def _sum_rows(rows: Tensor, begin: Tensor, taps: Taps) -> Tensor:
    """Every row of the views whose planes' rows begin at `begin` (n, 3): (3n * size, row length)."""
    index = taps.first.unsqueeze(2) + torch.arange(taps.weights.shape[2], device=rows.device)
    index = (begin[:, :, None, None] + index.unsqueeze(1)).flatten(0, 2)
    weights = taps.weights.unsqueeze(1).expand(-1, 3, -1, -1).flatten(0, 2)
    if rows.device.type in ("cpu", "cuda", "meta"):
        return embedding_bag(index, rows, mode="sum", per_sample_weights=weights)
    return add_rows(rows, index, weights)


def add_rows(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """What `embedding_bag` computes, for devices that lack it."""
    total = rows.new_zeros(len(index), rows.shape[1])
    for row, weight in zip(index.unbind(1), weights.unbind(1), strict=True):
        total.addcmul_(rows.index_select(0, row), weight.unsqueeze(1))
    return total
