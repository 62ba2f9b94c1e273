"""Gaussian blur of the planes of one view: the window of `vissl_zoo.views.blur`, cut where it no longer counts."""

import math

import numpy as np

from vissl_zoo.views.compiled.deliver import finish
from vissl_zoo.views.compiled.options import apart, inlined
from vissl_zoo.views.compiled.simd import LANES, load, splat, store

LEAST_TAP = 1e-7  # beside the middle one: what is smaller is lost in a float32 sum
ROWS = 8  # between the two passes: a row is then written to its end long before it is read at other offsets


@inlined
def blur_taps(sigma, radius, taps):
    """Half of a window of 2 * radius + 1 pixels, the middle first, then a zero; how many taps are worth a product.

    The window sums to one before it is cut.
    """
    whole, count = 1.0, 1
    for k in range(1, radius + 1):
        tap = math.exp(-0.5 * (k / sigma) ** 2)
        taps[k] = tap
        whole += 2.0 * tap
        if tap > LEAST_TAP:
            count = k + 1
    taps[0] = 1.0
    for k in range(count):
        taps[k] *= np.float32(1.0 / whole)
    taps[count] = 0.0
    return count


@apart
def blur_view(target, channels, view, taps, count, rows, span):
    """Blur the 3 or 1 planes of a view with the first `count` taps and finish it; rows (8, 3, span) is scratch."""
    stride, size = target.stride, target.size
    line, reach = channels * stride, count - 1
    origin = target.margin * line
    for k in range(1, count):
        for x in range(origin, origin + line, LANES):
            store(target.planes, x - k * line, load(target.planes, x + k * line))
            store(target.planes, x + (size - 1 + k) * line, load(target.planes, x + (size - 1 - k) * line))
    step = LANES if channels == 3 else 3 * LANES
    for start in range(0, size, ROWS):
        stop = min(start + ROWS, size)
        for y in range(start, stop):
            place, row = origin + y * line, (y - start) * 3 * span + reach
            for x in range(0, stride, step):
                second, third = three_places(channels, x, stride, stride)
                one, two, three = blur_three(
                    target.planes, place + x, place + second, place + third, line, taps
                )
                second, third = three_places(channels, x, stride, span)
                store(rows, row + x, one)
                store(rows, row + second, two)
                store(rows, row + third, three)
            for channel in range(channels):
                reflect_borders(rows, row + channel * span, size, count)
        for y in range(start, stop):
            row = (y - start) * 3 * span + reach
            for x in range(0, stride, step):
                second, third = three_places(channels, x, stride, span)
                one, two, three = blur_three(rows, row + x, row + second, row + third, 1, taps)
                if channels == 3:
                    finish(target, view, y, x, one, two, three)
                else:
                    finish(target, view, y, x, one, one, one)
                    finish(target, view, y, second, two, two, two)
                    finish(target, view, y, third, three, three, three)


@inlined
def three_places(channels, x, stride, span):
    """Where two more vectors lie: in the other channels, `span` apart, or beside the one at x, at most the last."""
    if channels == 3:
        return x + span, x + 2 * span
    return min(x + LANES, stride - LANES), min(x + 2 * LANES, stride - LANES)


@inlined
def reflect_borders(row, first, size, count):
    """Write count - 1 pixels before and after the `size` at row[first]."""
    last = first + size - 1
    for k in range(1, count):
        row[first - k] = row[first + k]
        row[last + k] = row[last - k]


@inlined
def blur_three(pixels, a, b, c, step, taps):
    """Three vectors, at a, b and c, blurred along the axis on which neighbours lie `step` apart.

    The loop ends at the zero after the taps: LLVM unrolls one whose length it knows by eight and spills its addresses.
    """
    tap = splat(taps[0])
    one, two, three = load(pixels, a) * tap, load(pixels, b) * tap, load(pixels, c) * tap
    k, before, after = 1, -step, step
    while taps[k] != 0:
        tap = splat(taps[k])
        one = one + (load(pixels, a + before) + load(pixels, a + after)) * tap
        two = two + (load(pixels, b + before) + load(pixels, b + after)) * tap
        three = three + (load(pixels, c + before) + load(pixels, c + after)) * tap
        k += 1
        before -= step
        after += step
    return one, two, three
