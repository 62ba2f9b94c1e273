"""Where sixteen pixels go: into planes, where contrast and blur find them, or normalised into the finished view."""

from typing import Any, NamedTuple

from vissl_zoo.views.compiled.colour import luma
from vissl_zoo.views.compiled.options import inlined
from vissl_zoo.views.compiled.simd import LANES, splat, store, store_interleaved

COLOUR_PLANES, GRAY_PLANE, VIEW = range(3)  # where to


class Target(NamedTuple):
    """The finished views, and the planes (size + 2 * margin, 3 or 1, stride) of one that is not finished."""

    views: Any  # (N, 3, size, size) float32, or (N, size, size, 3) with `channels_last`
    planes: Any  # float32
    size: int
    stride: int  # `size` rounded up to whole vectors
    margin: int  # rows above and below, for the blur's reflected borders
    channels_last: bool
    normalise: Any  # (6,) float32: scale and shift of the three channels
    tail: Any  # (48,) float32: for a vector that does not fit in at the right border


@inlined
def deliver(target, where, gray, view, y, x, red, green, blue):
    """Pixels x, ..., x + 15 of row y; turned gray, unless the planes of colours are for operations yet to come."""
    if gray:
        red = luma(red, green, blue)
        green = blue = red
    stride = target.stride
    if where == VIEW:
        finish(target, view, y, x, red, green, blue)
    elif where == GRAY_PLANE:
        store(target.planes, (target.margin + y) * stride + x, red)
    else:
        index = (target.margin + y) * 3 * stride + x
        store(target.planes, index, red)
        store(target.planes, index + stride, green)
        store(target.planes, index + 2 * stride, blue)


@inlined
def finish(target, view, y, x, red, green, blue):
    """Normalise pixels x, ..., x + 15 of row y and write those that lie in the view."""
    numbers, size = target.normalise, target.size
    red = red * splat(numbers[0]) + splat(numbers[3])
    green = green * splat(numbers[1]) + splat(numbers[4])
    blue = blue * splat(numbers[2]) + splat(numbers[5])
    count, area = min(size - x, LANES), size * size
    if target.channels_last:
        index = 3 * (view * area + y * size + x)
        if count == LANES:
            store_interleaved(target.views, index, red, green, blue)
        else:
            store_interleaved(target.tail, 0, red, green, blue)
            for k in range(3 * count):
                target.views[index + k] = target.tail[k]
    else:
        index = 3 * view * area + y * size + x
        put(target, index, count, red)
        put(target, index + area, count, green)
        put(target, index + 2 * area, count, blue)


@inlined
def put(target, index, count, value):
    """Write the first `count` lanes."""
    if count == LANES:
        store(target.views, index, value)
    else:
        store(target.tail, 0, value)
        for k in range(count):
            target.views[index + k] = target.tail[k]
