"""From canvases and draws to normalised views: the images of one resolution together, a cache-sized chunk at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vissl_zoo.views.blur import blur_planes
from vissl_zoo.views.colour import COLUMNS, jitter_class, jitter_planes, jitter_table, luma, to_device
from vissl_zoo.views.draws import ViewDraws
from vissl_zoo.views.resample import crop_to_planes
from vissl_zoo.views.threads import load_kernel, render_on_threads

# Numbers of views that are worked on together. On a CPU a core's share of them, and a dozen temporaries a third as
# large, should stay in its caches; an accelerator takes more, since there each operation has its price.
CHUNK, CHUNK_ON_DEVICE = 2**19, 2**25
# glibc gives blocks above a threshold back to the system when they are freed, and every page of the next one is a
# fault: 40 of 130 µs a view of 64 px. Freeing one large block, never touched, lifts the threshold for good.
torch.empty(2**25 - 2**16, dtype=torch.uint8)
BOX, SIGMA, FLIP = slice(0, 4), 4 + COLUMNS, 5 + COLUMNS  # columns of the numbers beside `jitter_table`'s


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

    float32 on a CPU goes view by view through compiled code (`vissl_zoo.views.compiled`), where numba is installed;
    everything else, in batches through torch's operations, which are also what the compiled code is tested against.
    """
    views, batch = boxes.shape[:2]
    device = images.device
    count = views * batch
    scale, shift = 1 / torch.tensor(finish.std), -torch.tensor(finish.mean) / torch.tensor(finish.std)
    normalise = torch.stack([scale, shift])
    kernel = load_kernel() if device.type == "cpu" and finish.dtype == torch.float32 else None
    if kernel:
        out = render_on_threads(
            kernel, images, boxes.double(), draws, size, radius, normalise, finish.channels_last
        )
        return list(out.unflatten(0, (views, batch)).unbind(0))
    memory_format = torch.channels_last if finish.channels_last else torch.contiguous_format
    out = torch.empty(count, 3, size, size, dtype=finish.dtype, device=device, memory_format=memory_format)
    numbers = CHUNK * torch.get_num_threads() if device.type == "cpu" else CHUNK_ON_DEVICE
    chunk = max(1, min(count, numbers // (3 * size * size)))
    chunk = math.ceil(count / max(1, math.ceil(count / chunk)))  # of equal length: no small rest
    work = _Work.of(boxes, draws, chunk, finish.dtype, device)
    normalise = to_device(normalise.to(finish.dtype).view(2, 3, 1, 1), device)
    for first in range(0, count, max(1, chunk)):
        part = slice(first, min(first + chunk, count))
        planes, rows = _chunk(images, work, part, size, radius, finish.dtype)
        view = out[part]
        if finish.channels_last:
            view.copy_(planes.index_select(0, rows).view_as(view))
        else:
            torch.index_select(planes, 0, rows, out=view.view(-1, size, size))
        view.mul_(normalise[0]).add_(normalise[1])
    return list(out.unflatten(0, (views, batch)).unbind(0))


@dataclass(frozen=True)
class _Work:
    """The draws of N views, those of a chunk sorted by what happens to their colours."""

    order: Tensor  # (N,) int64, CPU: which view stands here
    kind: Tensor  # (N,), CPU: see `jitter_class`
    gray: Tensor  # (N,) bool, CPU
    blur: Tensor  # (N,) bool, CPU
    image: Tensor  # (N,) int64, on the device
    numbers: Tensor  # (N, …) on the device: box, jitter table, sigma, flip

    @classmethod
    def of(
        cls, boxes: Tensor, draws: ViewDraws, chunk: int, dtype: torch.dtype, device: torch.device
    ) -> _Work:
        factors, order, jitter = (
            draws.factors.flatten(0, 1),
            draws.order.flatten(0, 1),
            draws.jitter.flatten(),
        )
        kind = jitter_class(factors, order, jitter)
        place = torch.arange(len(kind))
        by_chunk = (place // max(1, chunk) * 6 + kind).argsort(stable=True)
        rest = (draws.sigma.reshape(-1, 1), draws.flip.reshape(-1, 1))
        parts = [boxes.flatten(0, 1), jitter_table(factors, order), *rest]
        numbers = torch.cat([part.to(dtype) for part in parts], 1)[by_chunk]
        return cls(
            by_chunk,
            kind[by_chunk],
            draws.grayscale.flatten()[by_chunk],
            draws.blur.flatten()[by_chunk],
            to_device(by_chunk % boxes.shape[1], device),
            to_device(numbers, device),
        )


def _chunk(
    images: Tensor, work: _Work, part: slice, size: int, radius: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(planes (m, size, size), rows (3n,)): the views of a chunk are planes[rows], in [0, 1].

    A blurred or gray image is written beside the others and `rows` points there, so nothing is moved back. Which
    images are touched is known on the CPU: the device gets indices and the host never waits.
    """
    device, numbers = images.device, work.numbers[part]
    blurred, gray = (flag[part].nonzero().squeeze(1) for flag in (work.blur, work.gray))
    n, m = len(numbers), len(numbers) + len(blurred)
    pool = torch.empty(3 * m + len(gray), size, size, dtype=dtype, device=device)
    planes = pool[: 3 * m].view(3, m, size, size)
    cut = planes[:, :n]
    crop_to_planes(images, work.image[part], numbers[:, BOX], numbers[:, FLIP] > 0, size, cut, 1 / 255)
    jitter_planes(cut, work.kind[part], numbers[:, 4 : 4 + COLUMNS])

    channel = m * torch.arange(3)
    rows = torch.arange(n) + channel.view(3, 1)  # (3, n): the row of `pool` of each channel of each view
    if len(blurred):
        rows[:, blurred] = torch.arange(n, m) + channel.view(3, 1)
        index = to_device(blurred, device)
        sharp = torch.stack([plane.index_select(0, index) for plane in cut])
        blur_planes(sharp, numbers[:, SIGMA].index_select(0, index), radius, planes[:, n:])
    if len(gray):
        index = to_device(rows[:, gray].flatten(), device)
        luma(pool.index_select(0, index).view(3, len(gray), size, size), out=pool[3 * m :])
        rows[:, gray] = torch.arange(3 * m, len(pool))
    places = work.order[part].argsort()  # the chunk's views in their own order again
    return pool, to_device(rows[:, places].T.flatten(), device)
