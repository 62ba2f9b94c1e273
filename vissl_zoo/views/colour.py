"""Colour jitter and gray levels of a whole batch as planes, each image with factors and an order of its own."""

import torch
from torch import Tensor

from vissl_zoo.views.draws import OPERATIONS

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, the digits that torchvision uses
CONTRAST, SATURATION, HUE = (OPERATIONS.index(name) for name in ("contrast", "saturation", "hue"))
COLUMNS = 10  # numbers an image in the table of `jitter_table`


def jitter_class(factors: Tensor, order: Tensor, jitter: Tensor) -> Tensor:
    """What happens to an image, as a number (N,) to sort by: 0 nothing, 1 + the number of blends before its hue.

    factors and order (N, 4) as in `ViewDraws`, jitter (N,) bool. Number 5 has no hue: three blends are all.
    """
    kind = 1 + (order == HUE).to(torch.uint8).argmax(1)
    kind[factors[:, HUE] == 0] = 5
    idle = (factors[:, :3] == 1).all(1) & (kind == 5)
    return torch.where(jitter & ~idle, kind, 0)


def jitter_table(factors: Tensor, order: Tensor) -> Tensor:
    """The coefficients (N, 10) of each image: factor, part of the mean, part of the gray for 3 blends; the hue.

    Three of the four operations are one: clamp(f · image + (1 - f) · reference), where the reference is black, the
    mean gray, or the gray image.
    """
    blends = order[order != HUE].view(-1, 3)
    factor = factors.gather(1, blends)
    mean_part = torch.where(blends == CONTRAST, 1 - factor, 0.0)
    gray_part = torch.where(blends == SATURATION, 1 - factor, 0.0)
    return torch.cat([torch.stack([factor, mean_part, gray_part], 2).flatten(1), factors[:, HUE:]], 1)


def jitter_planes(planes: Tensor, kind: Tensor, table: Tensor) -> None:
    """Brightness, contrast, saturation and hue, in the order of each image; in place.

    planes (3, n, H, W) floating in [0, 1], sorted by `kind` (n,), which lies on the CPU (`jitter_class`); table
    (n, 10) on the planes' device (`jitter_table`).

    The hue is the dear one, so it is computed once for all, and the blends move around it: step k takes the images
    that have more than k blends before their hue, and after it those that have not. In the order of `kind` these are
    slices: nothing is gathered or put back.
    """
    start = torch.searchsorted(kind, torch.arange(1, 6)).tolist() + [len(kind)]  # where kinds 1, …, 5 begin
    for step in range(3):
        _blend(planes, table, step, slice(start[step + 1], None))
    turned = slice(start[0], start[4])
    if start[0] < start[4]:
        shift_hue(planes[:, turned], table[turned, 9])
    for step in range(3):
        _blend(planes, table, step, slice(start[0], start[step + 1]))


def _blend(planes: Tensor, table: Tensor, step: int, part: slice) -> None:
    """In place clamp(factor · image + mean_part · mean gray + gray_part · gray) on a slice of the images."""
    planes = planes[:, part]
    if not planes.shape[1]:
        return
    factor, mean_part, gray_part = table[part, 3 * step : 3 * step + 3].T.view(3, -1, 1, 1)
    gray = luma(planes)
    mean = gray.mean((1, 2), keepdim=True).mul_(mean_part)
    # One number an image at most in an operation: with two a CPU leaves its vector instructions.
    reference = gray.mul_(gray_part).add_(mean)
    torch.addcmul(reference, planes, factor, out=planes)
    planes.clamp_(0, 1)


def shift_hue(planes: Tensor, shift: Tensor) -> None:
    """Turn the colour wheel in place: planes (3, n, H, W) in [0, 1], shift (n,) in turns, -0.5 to 0.5.

    Equal to the way by HSV and back (Smith, "Color gamut transform pairs", 1978) without its case
    distinctions. Value and chroma stay as they are; the hue h runs from 0 to 6, red 0, green 2, blue 4.
    A channel is min + chroma · clamp(2 - d, 0, 1), d the distance on the wheel from h to the channel's own
    hue. Solved for the distance to red, d = 1 + (G + B - R - min) / chroma, and h lies on green's side where
    G > B. (Tried: `torch.where` over the six sectors, four times slower on a CPU.)
    """
    red, green, blue = planes
    low = torch.minimum(red, green)
    low = torch.minimum(low, blue, out=low)
    high = torch.maximum(red, green)
    high = torch.maximum(high, blue, out=high)
    hue = (green + blue).sub_(red).sub_(low)
    chroma = high - low
    # Of a gray pixel 0 / tiny: any hue will do.
    hue.div_(chroma.clamp_min(torch.finfo(planes.dtype).tiny)).add_(1)
    hue.copysign_(green - blue).add_(6 * shift.view(-1, 1, 1))
    hue.sub_((hue / 6).floor_(), alpha=6)
    # On [0, 6) the level clamp(|h - 3| - 1) for red, 1 - clamp(|h - 2| - 1) for green, 1 - clamp(|h - 4| - 1) for blue.
    for plane, centre in zip((red, green, blue), (3, 2, 4), strict=True):
        torch.sub(hue, centre, out=plane)
    planes.abs_().sub_(1).clamp_(0, 1)
    torch.addcmul(low, chroma, red, out=red)
    for plane in (green, blue):
        torch.addcmul(high, chroma, plane, value=-1, out=plane)


def luma(planes: Tensor, out: Tensor | None = None) -> Tensor:
    """The gray level of planes (3, …): (…), 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = planes
    return torch.mul(red, LUMA[0], out=out).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a small CPU tensor without making the host wait for the device."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
