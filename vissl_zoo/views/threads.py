"""Views of float32 on a CPU by the compiled kernel, on as many threads as torch has."""

from __future__ import annotations

import warnings
from functools import lru_cache, partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from vissl_zoo.views.draws import OPERATIONS, ViewDraws
from vissl_zoo.views.team import work_together

CACHE_LINE = 16  # float32 numbers
WORTH_A_THREAD = 2**13  # pixels of views: 25 µs of work, where to wake a thread and hand it all takes 10


@lru_cache
def load_kernel() -> ModuleType | None:
    """The kernel, or None where it cannot be had; imported and compiled when views are first rendered, not before.

    Without numba, or with one that refuses this numpy, torch's operations take its place in silence; with one that
    fails to start or to compile it, after a warning.
    """
    try:
        from vissl_zoo.views.compiled import kernel

        kernel.compile_now()
    except ImportError:
        return None
    except Exception as error:  # numba and LLVM raise dozens of types, and other ways to the views exist
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        warnings.warn(
            f"views are rendered by torch's operations: numba cannot compile ({reason})", stacklevel=2
        )
        return None
    return kernel


def render_on_threads(
    kernel: ModuleType,
    images: Tensor,
    boxes: Tensor,
    draws: ViewDraws,
    size: int,
    radius: int,
    normalise: Tensor,
    channels_last: bool,
) -> Tensor:
    """The V views of B canvases, (V * B, 3, size, size) float32; threads and the other views change nothing in a view.

    images (B, 3, H, W) uint8; boxes (V, B, 4) float64 in pixels of the canvas; `radius` of the blur's window in pixels;
    normalise (2, 3), factor and summand. numba's own threads are not used: they would run beside torch's, which wait
    in a loop (see `work_together`).
    """
    count = boxes.shape[0] * boxes.shape[1]
    out = empty_views(count, size, channels_last)
    if not count:
        return out
    if images.shape[3] < kernel.LANES:
        images = pad(images, (0, kernel.LANES - images.shape[3]))
    images = images.contiguous()
    rows = draws_by_view(kernel, boxes, draws)
    radius = min(radius, size - 1)
    views = (out.permute(0, 2, 3, 1) if channels_last else out).view(-1).numpy()
    numbers, pixels, counters = (
        normalise.float().flatten().numpy(),
        images.numpy(),
        np.zeros((2, 1), np.int64),
    )
    threads = torch.get_num_threads()
    if count * size * size < threads * WORTH_A_THREAD:
        threads = 1
    scratch = kernel.Scratch.of(threads, *pixels.shape[2:], size, radius)
    work = partial(
        kernel.render, pixels, rows, views, size, radius, channels_last, numbers, scratch, *counters
    )
    if threads > 1:
        work_together(work, threads)
    else:
        work()
    if counters[1, 0] < count:  # Python itself failed in every thread, before the work began
        raise RuntimeError("no thread could render the views")
    return out


def draws_by_view(kernel: ModuleType, boxes: Tensor, draws: ViewDraws) -> tuple[np.ndarray, ...]:
    """`kernel.Draws`, of the types that it is compiled for: with others it would be compiled again.

    Raises ValueError where compiled code, which checks no index, would read beyond an array.
    """
    types = {"factors": torch.float64, "order": torch.int64, "sigma": torch.float64}
    rows = {"boxes": boxes.double().flatten(0, 1).contiguous().numpy()}
    for name in kernel.Draws._fields[1:]:
        column = getattr(draws, name)
        shape = (*boxes.shape[:2], len(OPERATIONS)) if name in ("factors", "order") else boxes.shape[:2]
        if column.shape != shape:
            raise ValueError(f"draws.{name} must be {tuple(shape)}, got {tuple(column.shape)}")
        rows[name] = column.to(types.get(name, torch.bool)).flatten(0, 1).contiguous().numpy()
    if rows["order"].min() < 0 or rows["order"].max() >= len(OPERATIONS):
        raise ValueError(f"draws.order must lie in 0 to {len(OPERATIONS) - 1}")
    return kernel.Draws(**rows)


def empty_views(count: int, size: int, channels_last: bool) -> Tensor:
    """Memory for views, by numpy, which asks for huge pages where torch does not.

    Beyond 32 MiB a block is new from the system each time: at 224 px its faults took longer than all the rest.
    """
    numbers = count * 3 * size * size
    block = torch.from_numpy(np.empty(numbers + CACHE_LINE, np.float32))
    first = -(block.data_ptr() // 4) % CACHE_LINE
    flat = block[first : first + numbers]
    if channels_last:
        return flat.view(count, size, size, 3).permute(0, 3, 1, 2)
    return flat.view(count, 3, size, size)
