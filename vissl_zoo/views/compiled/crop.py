"""The antialiased bilinear crop of one view: the filter of `vissl_zoo.views.resample`, only where it is not zero.

Across, sixteen output pixels at a time are sums over the pixels that any of them needs: a few products with zero are
far cheaper than gathering. Down, a row of the canvas is resampled across once, when the first output row needs it, and
kept in a ring for as long as one does.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from vissl_zoo.views.compiled.colour import luma, recolour
from vissl_zoo.views.compiled.deliver import deliver
from vissl_zoo.views.compiled.options import apart
from vissl_zoo.views.compiled.simd import LANES, advance, load, splat, store, total


class Taps(NamedTuple):
    """The filter of one axis: output pixel i is a sum over the `count` pixels from `first` on."""

    size: int
    most: int  # row length of `weights`
    first: Any  # (size,) int64
    count: Any  # (size,) int64
    weights: Any  # (size, most) float32


class Bands(NamedTuple):
    """The filter across: a block of sixteen output pixels is a sum over the `width` pixels from `first` on."""

    blocks: int
    first: Any  # (blocks,) int64
    width: Any  # (blocks,) int64
    offset: Any  # (blocks,) int64: where in `weights` the (width, 16) of a block begin
    weights: Any  # float32


class Canvas(NamedTuple):
    """The images, and what is read of one of them at a time."""

    pixels: Any  # (B, 3, height, width) uint8
    height: int
    width: int
    levels: Any  # (3, span) float32: a row of the canvas
    span: int
    ring: Any  # (most, 3, stride) float32: rows of the canvas at the width of the view
    slots: Any  # (most,) int64: where in `ring` the rows of one output row lie


@apart
def fill_taps(taps, start, extent, length, mirrored, scale):
    """The filter of an axis of `length` pixels, computed in float64 and multiplied by `scale`; see `filter_weights`."""
    step = extent / taps.size
    reach = max(step, 1.0)
    slope = 1.0 / reach
    end = start + extent
    low, high = max(math.floor(start), 0), min(math.ceil(end), length)
    for i in range(taps.size):
        place = taps.size - 1 - i if mirrored else i
        centre = start + (place + 0.5) * step
        first = max(math.floor(centre - reach - 0.5) + 1, low)
        count = min(math.ceil(centre + reach - 0.5), high) - first
        row, whole = i * taps.most, 0.0
        for t in range(count):
            pixel = first + t
            inside = min(min(pixel + 1.0, end) - max(float(pixel), start), 1.0)
            weight = max(1.0 - abs(pixel + 0.5 - centre) * slope, 0.0) * inside
            taps.weights[row + t] = weight
            whole += weight
        for t in range(count):
            taps.weights[row + t] *= np.float32(scale / whole)
        taps.first[i] = first
        taps.count[i] = count


@apart
def fill_bands(bands, taps):
    """Lay the taps of sixteen neighbours side by side, zero where one does not reach; (first, last + 1) pixel read."""
    offset, leftmost, rightmost = 0, taps.first[0], 0
    for block in range(bands.blocks):
        left, right = block * LANES, min((block + 1) * LANES, taps.size)
        first, last = taps.first[left], 0
        for x in range(left, right):
            first = min(first, taps.first[x])
            last = max(last, taps.first[x] + taps.count[x])
        bands.first[block] = first
        bands.width[block] = last - first
        bands.offset[block] = offset
        for p in range(last - first):
            store(bands.weights, offset + p * LANES, splat(0.0))
        for x in range(left, right):
            place = offset + (taps.first[x] - first) * LANES + x - left
            for t in range(taps.count[x]):
                bands.weights[place + t * LANES] = taps.weights[x * taps.most + t]
        offset += (last - first) * LANES
        leftmost, rightmost = min(leftmost, first), max(rightmost, last)
    return leftmost, rightmost


@apart
def resample_row(canvas, line, base, reads, bands, row):
    """A row of the canvas to the width of the view: row (3, stride) of the pixels at `line` and a plane or two further.

    `reads` vectors are read from pixel `base` on, the last of them further left where it would leave the canvas.
    """
    levels, span, stride = canvas.levels, canvas.span, bands.blocks * LANES
    for channel in range(3):
        for block in range(reads):
            x = min(base + block * LANES, canvas.width - LANES)
            store(levels, channel * span + x - base, load(canvas.pixels, line + x))
        line += canvas.height * canvas.width
    for block in range(bands.blocks):
        red, green, blue = splat(0.0), splat(0.0), splat(0.0)
        x, offset = bands.first[block] - base, bands.offset[block]
        for p in range(bands.width[block]):
            weight = load(bands.weights, offset + p * LANES)
            red = red + splat(levels[x + p]) * weight
            green = green + splat(levels[span + x + p]) * weight
            blue = blue + splat(levels[2 * span + x + p]) * weight
        store(row, block * LANES, red)
        store(row, stride + block * LANES, green)
        store(row, 2 * stride + block * LANES, blue)


@apart
def crop_view(canvas, image, base, reads, down, bands, jitter, stop, target, where, gray, view):
    """Crop one view, recolour it up to operation `stop`, deliver it, and return the sum of its gray levels before."""
    stride, ring, slots, area = target.stride, canvas.ring, canvas.slots, canvas.height * canvas.width
    ready, gray_sum = 0, 0.0  # rows of the canvas before `ready` are in the ring
    for y in range(target.size):
        first, count = down.first[y], down.count[y]
        for r in range(max(ready, first), first + count):
            line = image * 3 * area + r * canvas.width
            resample_row(canvas, line, base, reads, bands, advance(ring, r % down.most * 3 * stride))
        ready = max(ready, first + count)
        for t in range(count):
            slots[t] = (first + t) % down.most * 3 * stride
        row_sum = splat(0.0)
        for x in range(0, stride, LANES):
            red, green, blue = splat(0.0), splat(0.0), splat(0.0)
            for t in range(count):
                weight, place = splat(down.weights[y * down.most + t]), slots[t] + x
                red = red + load(ring, place) * weight
                green = green + load(ring, place + stride) * weight
                blue = blue + load(ring, place + 2 * stride) * weight
            red, green, blue = recolour(red, green, blue, jitter, 0, stop)
            # Lanes beyond the right border are black, and stay so in every operation but contrast.
            row_sum = row_sum + luma(red, green, blue)
            deliver(target, where, gray, view, y, x, red, green, blue)
        gray_sum += total(row_sum)  # in float64: a view has more pixels than float32 has digits
    return gray_sum
