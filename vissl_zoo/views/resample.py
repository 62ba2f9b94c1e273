"""Crop, resize and mirror with the antialiased bilinear filter, a box of its own for each view of a batch.

A row of the result is a weighted sum of a few rows of the image, which `embedding_bag` computes for a whole batch at
once and only where a weight is not zero. Rows are summed, the planes are laid on their side, and rows are summed again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag


class Taps(NamedTuple):
    """A filter of one axis for N views: each of a view's pixels is a weighted sum of a few neighbours."""

    first: Tensor  # (..., size) int64: the first pixel of the image that counts
    weights: Tensor  # (..., size, taps): of the pixels from there on; they sum to one


def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop, resize to a square with the antialiased bilinear filter, and mirror where `flip` says so.

    images (B, 3, H, W) floating; boxes (B, 4) top, left, height, width in pixels, fractions allowed; flip (B,) bool
    -> (B, 3, size, size). Each axis is scaled by itself, so a canvas that was squashed from the original gives the
    crop its true aspect back.
    """
    filters = crop_taps(boxes.cpu().double(), flip.cpu(), images.shape[2:], size)
    down, across = (Taps(f.first.to(images.device), f.weights.to(images)) for f in filters)
    return crop_sideways(images, torch.arange(len(images), device=images.device), down, across).transpose(
        2, 3
    )


def crop_taps(boxes: Tensor, flip: Tensor, canvas: tuple[int, int], size: int) -> tuple[Taps, Taps]:
    """The filters down and across, on the CPU; boxes (..., 4) float64 and flip (...) as in `resized_crop`."""
    corner, extent = boxes[..., :2], boxes[..., 2:]
    most = extent.flatten(0, -2).amax(0).tolist() if extent.numel() else canvas
    count = [min(math.ceil(2 * max(e / size, 1)), length) for e, length in zip(most, canvas, strict=True)]
    down = filter_taps(corner[..., 0], extent[..., 0], canvas[0], size, count[0])
    return down, filter_taps(corner[..., 1], extent[..., 1], canvas[1], size, count[1], flip)


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
    first, weights = taps
    index = (
        begin[:, :, None, None]
        + (first.unsqueeze(2) + torch.arange(weights.shape[2], device=first.device))[:, None]
    )
    index, weights = index.flatten(0, 2), weights.unsqueeze(1).expand_as(index).flatten(0, 2)
    if rows.device.type in ("cpu", "cuda", "meta"):
        return embedding_bag(index, rows, mode="sum", per_sample_weights=weights)
    return add_rows(rows, index, weights)


def add_rows(rows: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """What `embedding_bag` computes, for devices that lack it."""
    total = rows.new_zeros(len(index), rows.shape[1])
    for row, weight in zip(index.unbind(1), weights.unbind(1), strict=True):
        total.addcmul_(rows.index_select(0, row), weight.unsqueeze(1))
    return total
