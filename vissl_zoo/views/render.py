"""From canvases and draws to normalised views: a cache-sized share of the images at a time, with all their views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vissl_zoo.views.blur import gaussian_blur
from vissl_zoo.views.colour import Jitter, jitter_colours, jitter_numbers, luma
from vissl_zoo.views.draws import ViewDraws
from vissl_zoo.views.view_crops import Taps, crop_sideways, crop_taps, taps_needed

# Numbers of views that are worked on together; an accelerator takes more, since there each operation has its price.
# On a CPU the colours, of many operations, take fewer at once: with their temporaries these stay in a core's cache.
CHUNK, CHUNK_ON_DEVICE, IN_CACHE = 2**20, 2**25, 2**18


@dataclass(frozen=True)
class Finish:
    """How views end: `mean` and `std` (3,) of the normalisation, their type and whether channels come last."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dtype: torch.dtype
    channels_last: bool


def render_views(
    images: Tensor, boxes: Tensor, draws: ViewDraws, size: int, radius: int, finish: Finish
) -> list[Tensor]:
    """The V views of B canvases at one resolution: V tensors (B, 3, size, size) that lie side by side in memory.

    images (B, 3, H, W) uint8; boxes (V, B, 4) floating, on the CPU, in pixels of the canvas; `radius` of the blur's
    window in pixels.
    """
    views, batch = boxes.shape[:2]
    device, dtype = images.device, finish.dtype
    if finish.channels_last:
        out = torch.empty(views, batch, size, size, 3, dtype=dtype, device=device).movedim(4, 2)
    else:
        out = torch.empty(views, batch, 3, size, size, dtype=dtype, device=device)
    work = _Work.of(images, boxes, draws, size, dtype)
    (shift,) = _send(device, -torch.tensor(finish.mean, dtype=dtype) / torch.tensor(finish.std, dtype=dtype))
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    chunk, at_once = (CHUNK, IN_CACHE) if device.type == "cpu" else (CHUNK_ON_DEVICE, CHUNK_ON_DEVICE)
    numbers = 3 * size * size
    shares = max(1, math.ceil(views * batch * numbers / (chunk * threads)))
    share, at_once = math.ceil(batch / shares), max(1, at_once * threads // numbers)
    for first in range(0, batch, max(1, share)):
        part = slice(first, min(first + share, batch))
        pixels = _render(images[part], work.part(part), radius, at_once)
        pixels = pixels.view(views, -1, 3, size, size).transpose(3, 4)
        for channel, std in enumerate(finish.std):
            torch.add(shift[channel], pixels[:, :, channel], alpha=1 / std, out=out[:, part, channel])
    return list(out.unbind(0))


class _Work(NamedTuple):
    """What is done to V views of B images, (V, B, ...) each; the first three lie on the CPU and steer the work."""

    kind: Tensor
    grayscale: Tensor
    blur: Tensor
    down_first: Tensor  # see `Taps`, as the next three
    down_weights: Tensor
    across_first: Tensor
    across_weights: Tensor
    matrix: Tensor  # see `Jitter`, as the next two
    mean_part: Tensor
    turn: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, images: Tensor, boxes: Tensor, draws: ViewDraws, size: int, dtype: torch.dtype) -> _Work:
        kind, *jitter = jitter_numbers(draws.factors, draws.order, draws.jitter)
        canvas = images.shape[2], images.shape[3]
        taps = taps_needed(boxes, canvas, size)
        numbers = [n.to(dtype) for n in (boxes, *jitter, draws.sigma)]
        boxes, *numbers, flip = _send(images.device, *numbers, draws.flip)
        down, across = crop_taps(boxes, flip, canvas, size, taps)
        down.weights.div_(255)
        return cls(kind, draws.grayscale, draws.blur, *down, *across, *numbers)

    def part(self, images: slice) -> _Work:
        """Of some images, (V * b, ...) each."""
        return _Work(*(t[:, images].flatten(0, 1) for t in self))


def _render(images: Tensor, work: _Work, radius: int, at_once: int) -> Tensor:
    """Views (V * b, 3, size, size) of b canvases in [0, 1], lying on their side.

    What happens to which view is known on the CPU: the device gets indices, and the host never waits.
    """
    order = work.kind.argsort(stable=True)
    kind, grayscale, blur = (steer[order] for steer in work[:3])
    gray, blurred = grayscale.nonzero().squeeze(1), blur.nonzero().squeeze(1)
    order, back, gray, blurred = _send(images.device, order, order.argsort(), gray, blurred)
    *taps, matrix, mean_part, turn, sigma = (numbers.index_select(0, order) for numbers in work[3:])
    image = order % max(1, len(images))
    pixels = crop_sideways(images.to(sigma.dtype), image, Taps(*taps[:2]), Taps(*taps[2:]))
    jitter_colours(pixels, Jitter(kind, matrix, mean_part, turn), at_once)
    if len(gray):
        level = luma(pixels.index_select(0, gray)).unsqueeze(1)
        pixels.index_copy_(0, gray, level.expand(-1, 3, -1, -1))
    if len(blurred):
        sharp, sigma = pixels.index_select(0, blurred), sigma.index_select(0, blurred)
        pixels.index_copy_(0, blurred, gaussian_blur(sharp, sigma, radius))
    return pixels.index_select(0, back)


def _send(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """Send small CPU tensors without making the host wait for the device."""
    if device.type == "cuda":
        tensors = tuple(tensor.pin_memory() for tensor in tensors)
    return [tensor.to(device, non_blocking=True) for tensor in tensors]
