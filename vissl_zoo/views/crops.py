"""Random resized crops of a whole batch: integer boxes on the original, two matrix products to render.

The boxes follow torchvision's RandomResizedCrop to the letter (Szegedy et al., "Going deeper with
convolutions", 2015, is where the augmentation comes from); the resampling is its antialiased bilinear
filter written as out = Wy · image · Wxᵀ, because a batched product needs no loop over images.
"""

import torch
from torch import Tensor


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
    tried = torch.stack([(target / aspect).sqrt().round(), (target * aspect).sqrt().round()], -1)
    fits = ((tried > 0) & (tried <= sizes.unsqueeze(-2))).all(-1)  # (..., B, attempts)
    first = fits.to(torch.uint8).argmax(-1)  # the first of equal maxima
    chosen = tried.gather(-2, first[..., None, None].expand(*first.shape, 1, 2)).squeeze(-2)

    narrow, wide = (width / height) < ratio[0], (width / height) > ratio[1]
    fallback = torch.stack(
        [
            torch.where(narrow, (width / ratio[0]).round(), height),
            torch.where(wide, (height * ratio[1]).round().clamp_min(1), width),
        ],
        -1,
    )
    found = fits.any(-1, keepdim=True)
    extent = torch.where(found, chosen, fallback)
    room = sizes - extent
    corner = torch.where(found, (position * (room + 1)).floor().minimum(room), (room / 2).floor())
    return torch.cat([corner, extent], -1).to(torch.int64)


def resized_crop(images: Tensor, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    """Crop, resize to a square with the antialiased bilinear filter, and mirror where `flip` says so.

    images (B, 3, H, W) floating; boxes (B, 4) top, left, height, width in canvas pixels, fractions allowed;
    flip (B,) bool -> (B, 3, size, size). Each axis is scaled by itself, so a canvas that was squashed from
    the original gives the crop its true aspect back.
    """
    batch, channels, height, width = images.shape
    top, left, box_height, box_width = boxes.unbind(-1)
    rows = filter_weights(top, box_height, height, size)
    columns = filter_weights(left, box_width, width, size, flip).transpose(1, 2)
    across = torch.bmm(images.reshape(batch, channels * height, width), columns)
    return torch.matmul(rows.unsqueeze(1), across.view(batch, channels, height, size))


def filter_weights(
    start: Tensor, extent: Tensor, length: int, size: int, flip: Tensor | None = None
) -> Tensor:
    """Weights (B, size, length) of the antialiased bilinear filter on one axis; every row sums to one.

    The box [start, start + extent) of each image, both (B,), is resampled to `size` pixels with a triangle of
    half-width max(extent / size, 1). As in a crop before a resize, no weight lies outside the box; a pixel
    that the box covers in part counts for that part.
    """
    pixel = torch.arange(length, dtype=start.dtype, device=start.device)
    target = torch.arange(size, dtype=start.dtype, device=start.device).expand(len(start), size)
    if flip is not None:
        target = torch.where(flip.unsqueeze(1), size - 1 - target, target)
    step = (extent / size).unsqueeze(1)
    centre = start.unsqueeze(1) + (target + 0.5) * step  # (B, size)
    end = (start + extent).unsqueeze(1)
    inside = torch.minimum(pixel + 1, end) - torch.maximum(pixel, start.unsqueeze(1))
    weights = (pixel + 0.5 - centre.unsqueeze(2)).abs_().div_(-step.clamp_min(1).unsqueeze(2)).add_(1)
    weights.clamp_min_(0).mul_(inside.clamp_(0, 1).unsqueeze(1))
    return weights.div_(weights.sum(2, keepdim=True))
