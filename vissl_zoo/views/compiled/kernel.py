"""Views on a CPU, each from uint8 canvas to normalised floats in one go, in the core's own caches.

The mathematics is that of resample.py, colour.py and blur.py, the path for accelerators and float64, which the tests
hold this one to. A view goes through sixteen pixels at a time, as three vectors, and rests in memory only where it
must: at contrast, which needs the mean of the whole view, and at blur, which needs neighbours.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from vissl_zoo.views.compiled.blur import ROWS, blur_taps, blur_view
from vissl_zoo.views.compiled.colour import Jitter, choose_jitter, recolour, set_mean
from vissl_zoo.views.compiled.crop import Bands, Canvas, Taps, crop_view, fill_bands, fill_taps
from vissl_zoo.views.compiled.deliver import COLOUR_PLANES, GRAY_PLANE, VIEW, Target, deliver
from vissl_zoo.views.compiled.options import ARITHMETIC, inlined
from vissl_zoo.views.compiled.simd import LANES, advance, load, pointer, take_next


class Draws(NamedTuple):
    """What was drawn for N views: as in `ViewDraws`, but with N rows each, and boxes for what they are drawn from."""

    boxes: np.ndarray  # (N, 4) float64: top, left, height, width in pixels of the canvas
    flip: np.ndarray
    jitter: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    grayscale: np.ndarray
    blur: np.ndarray
    sigma: np.ndarray


class Scratch(NamedTuple):
    """Every thread's memory, by seats. Arguments outlive the pointers to them, which arrays made inside might not."""

    down: tuple[np.ndarray, np.ndarray, np.ndarray]  # the arrays of `Taps`
    across: tuple[np.ndarray, np.ndarray, np.ndarray]  # the arrays of `Taps`
    bands: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # the arrays of `Bands`
    jitter: tuple[np.ndarray, np.ndarray]  # the arrays of `Jitter`
    levels: np.ndarray
    ring: np.ndarray
    slots: np.ndarray
    planes: np.ndarray
    tail: np.ndarray
    taps: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, seats: int, height: int, width: int, size: int, radius: int) -> Scratch:
        """For views of `size` pixels from canvases of height × width, blurred over at most `radius` pixels."""
        blocks = -(-size // LANES)
        stride = blocks * LANES
        tall, wide = (int(2 * max(length / size, 1)) + 3 for length in (height, width))
        band = int((LANES - 1) * width / size) + wide

        def floats(*shape: int) -> np.ndarray:
            return np.empty((seats, *shape), np.float32)

        def places(length: int) -> np.ndarray:
            return np.empty((seats, length), np.int64)

        return cls(
            (places(size), places(size), floats(size, tall)),
            (places(size), places(size), floats(size, wide)),
            (places(blocks), places(blocks), places(blocks), floats(blocks, min(band, width), LANES)),
            (places(4), floats(4, 3)),
            floats(3, width + LANES),
            floats(tall, 3, stride),
            places(tall),
            floats(size + 2 * radius, 3, stride),
            floats(3 * LANES),
            floats(radius + 2),
            floats(ROWS, 3, stride + 2 * radius),
        )


def compile_render(sources: str, cache: bool = True) -> Callable[..., None]:
    """The compiled function; `sources` stands in its cache's key, where numba itself looks at one file alone."""

    def render(images, draws, views, size, radius, channels_last, normalise, scratch, seats, counter):
        """Render views for as long as the counter, which all threads share, does not reach their number.

        images (B, 3, H, W) uint8, W >= 16; draws (N rows), view n of image n % B; views (N * 3 * size * size,)
        float32; `radius` < size of the blur's window; normalise (6,) scale and shift; seats, counter (1,) int64:
        of the next thread's scratch and of the next view.
        """
        sources  # noqa: B018
        seat = take_next(pointer(seats))
        batch, _, height, width = images.shape
        blocks = (size + LANES - 1) // LANES
        stride = blocks * LANES
        first, count, weights = scratch.down
        down = Taps(size, weights.shape[2], own(first, seat), own(count, seat), own(weights, seat))
        first, count, weights = scratch.across
        across = Taps(size, weights.shape[2], own(first, seat), own(count, seat), own(weights, seat))
        first, count, offset, weights = scratch.bands
        bands = Bands(blocks, own(first, seat), own(count, seat), own(offset, seat), own(weights, seat))
        kind, numbers = scratch.jitter
        jitter = Jitter(own(kind, seat), own(numbers, seat))
        levels, ring, slots = own(scratch.levels, seat), own(scratch.ring, seat), own(scratch.slots, seat)
        canvas = Canvas(pointer(images), height, width, levels, scratch.levels.shape[2], ring, slots)
        planes, tail = own(scratch.planes, seat), own(scratch.tail, seat)
        target = Target(pointer(views), planes, size, stride, radius, channels_last, pointer(normalise), tail)
        taps, rows = own(scratch.taps, seat), own(scratch.rows, seat)
        following = pointer(counter)
        view = take_next(following)
        while view < len(draws.flip):
            top, left, box_height, box_width = draws.boxes[view]
            fill_taps(down, top, box_height, height, False, 1 / 255)
            fill_taps(across, left, box_width, width, draws.flip[view], 1.0)
            base, end = fill_bands(bands, across)
            base = min(base, width - LANES)
            operations, contrast = choose_jitter(draws, view, jitter)
            gray, window = draws.grayscale[view], 1
            if draws.blur[view]:
                window = blur_taps(draws.sigma[view], radius, taps)
            last = VIEW if window == 1 else (GRAY_PLANE if gray else COLOUR_PLANES)
            waits = contrast < operations
            gray_sum = crop_view(
                canvas,
                view % batch,
                base,
                (end - base + LANES - 1) // LANES,
                down,
                bands,
                jitter,
                contrast,
                target,
                COLOUR_PLANES if waits else last,
                gray and not waits,
                view,
            )
            if waits:
                set_mean(jitter, contrast, gray_sum / (size * size))
                resume(target, last, gray, view, jitter, contrast, operations)
            if window > 1:
                blur_view(target, 1 if gray else 3, view, taps, window, rows, scratch.rows.shape[3])
            view = take_next(following)

    try:
        return njit(nogil=True, cache=cache, **ARITHMETIC)(render)
    except RuntimeError:  # neither beside this file nor in the user's cache folder can anything be written
        return njit(nogil=True, **ARITHMETIC)(render)


@inlined
def own(array, seat):
    """Where the part of one seat begins."""
    return advance(pointer(array), seat * (array.size // array.shape[0]))


@inlined
def resume(target, where, gray, view, jitter, start, stop):
    """Operations start, ..., stop - 1 on the planes of a view, and on to where it goes next."""
    stride = target.stride
    for y in range(target.size):
        for x in range(0, stride, LANES):
            i = (target.margin + y) * 3 * stride + x
            red, green, blue = (
                load(target.planes, i),
                load(target.planes, i + stride),
                load(target.planes, i + 2 * stride),
            )
            red, green, blue = recolour(red, green, blue, jitter, start, stop)
            deliver(target, where, gray, view, y, x, red, green, blue)


def digest() -> str:
    """Of every file that is compiled."""
    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()


render = compile_render(digest())


def compile_now() -> None:
    """Compile, or read from the cache, by a call that renders nothing; without a cache where that cannot be used."""
    global render
    try:
        render_nothing()
    except Exception as error:  # a damaged file, a full disk: whatever pickle and the system raise
        render = compile_render(digest(), cache=False)
        render_nothing()
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        warnings.warn(f"numba's cache of compiled code cannot be used ({reason})", stacklevel=2)


def render_nothing() -> None:
    """Call `render` with the types of every later call."""
    none = np.zeros((0, 4))
    no, order = np.zeros(0, bool), np.zeros((0, 4), np.int64)
    draws = Draws(none, no, no, none, order, no, no, np.zeros(0))
    canvas, numbers = np.zeros((1, 3, LANES, LANES), np.uint8), np.zeros(6, np.float32)
    scratch, counters = Scratch.of(1, LANES, LANES, LANES, 1), np.zeros((2, 1), np.int64)
    render(canvas, draws, numbers[:0], LANES, 1, True, numbers, scratch, *counters)
