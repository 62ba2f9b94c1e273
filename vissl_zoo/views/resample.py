"""The antialiased bilinear filter on a box of each image, as matrix products: dense ones, or banded where that is less.

Both give (3, n, size, size): one plane a channel. A product then writes straight into its place, and the colour
operations, which mix channels pixel by pixel, run over long contiguous stretches.
"""

import torch
from torch import Tensor

BLOCK = 32  # output pixels of one banded product
BANDED = (
    128  # side of a canvas from which a CPU takes the banded products; below, they do not pay for the loop
)


def crop_to_planes(
    images: Tensor, index: Tensor, boxes: Tensor, flip: Tensor, size: int, out: Tensor, scale: float = 1.0
) -> None:
    """Write the crops of images[index], each resized to a square, mirrored where `flip` says so, into `out`.

    images (B, 3, H, W) uint8 or floating, which are multiplied by `scale`; index (n,) int64; boxes (n, 4) of `out`'s
    type: top, left, height, width in pixels, fractions allowed; flip (n,) bool; out (3, n, size, size), each plane
    contiguous. Everything lies on one device.
    """
    if images.device.type == "cpu" and min(images.shape[2:]) >= BANDED:
        _banded(images, index, boxes, flip, size, out, scale)
    else:  # on an accelerator two large products beat many small ones
        _dense(images, index, boxes, flip, size, out, scale)


def filter_weights(
    start: Tensor, extent: Tensor, length: int, size: int, flip: Tensor | None = None
) -> Tensor:
    """Weights (B, size, length) of the antialiased bilinear filter on one axis; every row sums to one.

    The box [start, start + extent) of each image, both (B,), is resampled to `size` pixels with a triangle of
    half-width max(extent / size, 1). As in a crop before a resize, no weight lies outside the box; a pixel
    that the box covers in part counts for that part.
    """
    pixel = torch.arange(length, dtype=start.dtype, device=start.device)
    target = torch.arange(size, dtype=start.dtype, device=start.device)
    return _triangles(pixel, _centres(start, extent, target, size, flip), start, extent, size)


def band_weights(
    start: Tensor, extent: Tensor, length: int, size: int, flip: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The nonzero part of `filter_weights`, in blocks of `BLOCK` output pixels.

    (first (B, blocks) int64, width (B,) int64, weights (B, blocks, BLOCK, widest)): the pixels `first` and on of
    a block, `width` of them in every block of an image. The last block ends with rows that mean nothing where BLOCK
    does not divide `size`.
    """
    step = extent / size
    reach = step.clamp_min(1)
    width = ((BLOCK - 1) * step + 2 * reach).ceil().long() + 2
    width.clamp_max_(length)
    blocks = -(-size // BLOCK)
    target = torch.arange(blocks * BLOCK, dtype=start.dtype, device=start.device)
    centre = _centres(start, extent, target, size, flip).view(len(start), blocks, BLOCK)
    first = (centre.amin(2) - reach.unsqueeze(1) - 0.5).floor().long()
    first = first.clamp_min_(0).minimum((length - width).unsqueeze(1))
    pixel = first.unsqueeze(2) + torch.arange(int(width.max()), device=start.device)
    weights = _triangles(
        pixel.to(start.dtype).flatten(0, 1),
        centre.flatten(0, 1),
        *(edge.repeat_interleave(blocks) for edge in (start, extent)),
        size,
    )
    return first, width, weights.view(len(start), blocks, BLOCK, -1)


def _centres(start: Tensor, extent: Tensor, target: Tensor, size: int, flip: Tensor | None) -> Tensor:
    """Where output pixels lie on the input's axis: (B, len(target))."""
    target = target.expand(len(start), -1)
    if flip is not None:
        target = torch.where(flip.unsqueeze(1), size - 1 - target, target)
    return start.unsqueeze(1) + (target + 0.5) * (extent / size).unsqueeze(1)


def _triangles(pixel: Tensor, centre: Tensor, start: Tensor, extent: Tensor, size: int) -> Tensor:
    """Weights (B, t, p) of pixels (p,) or (B, p) for output pixels at `centre` (B, t)."""
    end = (start + extent).unsqueeze(1)
    inside = torch.minimum(pixel + 1, end) - torch.maximum(pixel, start.unsqueeze(1))  # (B, p)
    slope = (extent / size).clamp_min(1).reciprocal_().neg_().view(-1, 1, 1)
    weights = ((pixel + 0.5).unsqueeze(-2) - centre.unsqueeze(2)).abs_().mul_(slope).add_(1)
    weights.clamp_min_(0).mul_(inside.clamp_(0, 1).unsqueeze(1))
    return weights.div_(weights.sum(2, keepdim=True))


def _dense(
    images: Tensor, index: Tensor, boxes: Tensor, flip: Tensor, size: int, out: Tensor, scale: float
) -> None:
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.unbind(1)
    rows = filter_weights(top, box_height, height, size).mul_(scale)
    columns = filter_weights(left, box_width, width, size, flip).transpose(1, 2)
    chosen = images.index_select(0, index).to(out.dtype)
    across = torch.bmm(chosen.view(len(index), 3 * height, width), columns)
    across = across.view(len(index), 3, height, size)
    for channel in range(3):
        torch.bmm(rows, across[:, channel], out=out[channel])


def _banded(
    images: Tensor, index: Tensor, boxes: Tensor, flip: Tensor, size: int, out: Tensor, scale: float
) -> None:
    """Image by image, only the box is read, and of the products only the band that is not zero is computed."""
    height, width = images.shape[2:]
    top, left, box_height, box_width = boxes.unbind(1)
    down = band_weights(top, box_height, height, size)
    across = band_weights(left, box_width, width, size, flip)
    down[2].mul_(scale)
    blocks = [slice(i, min(i + BLOCK, size)) for i in range(0, size, BLOCK)]
    places = list(zip(index.tolist(), *(_as_lists(*part[:2]) for part in (down, across)), strict=True))
    for item, (image, (y, tall), (x, wide)) in enumerate(places):
        y0, x0 = min(y), min(x)
        box = images[image, :, y0 : max(y) + tall, x0 : max(x) + wide].permute(1, 0, 2)
        box = box.to(
            out.dtype, memory_format=torch.contiguous_format
        )  # (h, 3, w): all channels in one product
        resized = box.new_empty(size, 3 * box.shape[2])
        for part, first, weights in zip(blocks, y, down[2][item], strict=True):
            band = box[first - y0 : first - y0 + tall].flatten(1)
            torch.mm(weights[: part.stop - part.start, :tall], band, out=resized[part])
        resized = resized.view(3 * size, box.shape[2])
        square = box.new_empty(3 * size, size)
        for part, first, weights in zip(blocks, x, across[2][item], strict=True):
            band = resized[:, first - x0 : first - x0 + wide]
            torch.mm(band, weights[: part.stop - part.start, :wide].t(), out=square[:, part])
        out[:, item].copy_(square.view(size, 3, size).transpose(0, 1))


def _as_lists(first: Tensor, width: Tensor) -> list[tuple[list[int], int]]:
    return list(zip(first.tolist(), width.tolist(), strict=True))
