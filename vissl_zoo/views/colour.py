"""Colour jitter and grayscale of a whole batch, each image with factors and an order of its own."""

import torch
from torch import Tensor

from vissl_zoo.views.draws import OPERATIONS

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, the digits that torchvision uses
CONTRAST, SATURATION, HUE = (OPERATIONS.index(name) for name in ("contrast", "saturation", "hue"))


def color_jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in the order given for each image; works in place.

    images (B, 3, H, W) floating in [0, 1], on any device; factors (B, 4) and order (B, 4) on the CPU, columns
    and values as in `OPERATIONS`. Factors (1, 1, 1, 0) leave an image as it is. Returns `images`.

    Three of the four operations are one: clamp(f · image + (1 - f) · reference), where the reference is
    black, the mean gray, or the gray image. So the batch takes three such blends with coefficients per image,
    and only the hue works on subsets: the images whose hue comes before the first blend, the second, ...
    """
    is_hue = order == HUE
    turns = is_hue.to(torch.uint8).argmax(1)  # (B,): how many blends come before the hue
    blends = order[~is_hue].view(-1, 3)
    factor = factors.gather(1, blends)
    mean_part = torch.where(blends == CONTRAST, 1 - factor, 0.0)
    gray_part = torch.where(blends == SATURATION, 1 - factor, 0.0)
    table = torch.stack([factor, mean_part, gray_part]).permute(2, 0, 1)  # (3 blends, 3 parts, B)
    table = to_device(table.to(images.dtype), images.device)
    active = (factors[:, :3] != 1).any()
    for step in range(4):
        chosen = ((turns == step) & (factors[:, HUE] != 0)).nonzero().squeeze(1)
        if len(chosen):
            shift = to_device(factors[chosen, HUE].to(images.dtype), images.device)
            chosen = to_device(chosen, images.device)
            images.index_copy_(0, chosen, shift_hue(images.index_select(0, chosen), shift))
        if step < 3 and active:
            _blend(images, *table[step])
    return images


def _blend(images: Tensor, factor: Tensor, mean_part: Tensor, gray_part: Tensor) -> None:
    """In place clamp(factor · image + mean_part · mean gray + gray_part · gray); coefficients (B,)."""
    factor, mean_part, gray_part = (c.view(-1, 1, 1, 1) for c in (factor, mean_part, gray_part))
    gray = luma(images)
    reference = gray.mean((2, 3), keepdim=True) * mean_part + gray * gray_part
    images.mul_(factor).add_(reference).clamp_(0, 1)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour wheel: images (B, 3, H, W) in [0, 1], shift (B,) in turns, -0.5 to 0.5.

    Equal to the way by HSV and back (Smith, "Color gamut transform pairs", 1978) without its case
    distinctions. Value and chroma stay as they are; the hue h runs from 0 to 6, red 0, green 2, blue 4.
    A channel is min + chroma · clamp(2 - d, 0, 1), d the distance on the wheel from h to the channel's own
    hue. Solved for the distance to red, d = 1 + (G + B - R - min) / chroma, and h lies on green's side where
    G > B. (Tried: `torch.where` over the six sectors, four times slower on a CPU.)
    """
    red, green, blue = images.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(low)
    divisor = chroma.clamp_min(torch.finfo(images.dtype).tiny)  # of a gray pixel: 0 / tiny, any hue will do
    hue = (green + blue).sub_(red).sub_(low).div_(divisor).add_(1)
    hue.copysign_(green - blue).add_(6 * shift.view(-1, 1, 1))
    hue.sub_((hue / 6).floor_(), alpha=6)
    # On [0, 6) clamping |h - 3| - 1 for red, 2 - |h - 2| for green and 2 - |h - 4| for blue gives the same.
    level = torch.stack([hue - 3, hue - 2, hue - 4], 1).abs_()
    level[:, 0].sub_(1)
    level[:, 1:].neg_().add_(2)
    return level.clamp_(0, 1).mul_(chroma.unsqueeze(1)).add_(low.unsqueeze(1))


def luma(images: Tensor) -> Tensor:
    """The gray level of (B, 3, H, W) images: (B, 1, H, W), 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = images.unbind(1)
    return red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Send a small CPU tensor without making the host wait for the device."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
