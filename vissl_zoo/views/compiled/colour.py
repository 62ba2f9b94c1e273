"""Colour jitter of sixteen pixels: the operations of `vissl_zoo.views.colour`, one view's own in their order."""

from typing import Any, NamedTuple

import numpy as np

from vissl_zoo.views.compiled.options import inlined
from vissl_zoo.views.compiled.simd import absolute, floor, maximum, minimum, signed_by, splat

CONTRAST, SATURATION, HUE = 1, 2, 3  # indices into `draws.OPERATIONS`
RED, GREEN, BLUE = (np.float32(x) for x in (0.2989, 0.587, 0.114))  # as `colour.LUMA`
TINY = np.finfo(np.float32).tiny


class Jitter(NamedTuple):
    """The up to four operations of one view, in their order."""

    kind: Any  # (4,) int64, indices into `draws.OPERATIONS`
    numbers: (
        Any  # (4, 3) float32: the factor, or a hue's turn in sixths; the part of the gray level; a constant
    )


@inlined
def choose_jitter(draws, view, jitter):
    """Fill `jitter` with what changes something; (number of operations, contrast's place, or that number)."""
    count, contrast = 0, 4
    if draws.jitter[view]:
        for k in range(4):
            kind = draws.order[view, k]
            factor = draws.factors[view, kind]
            if factor == (0.0 if kind == HUE else 1.0):
                continue
            if kind == CONTRAST:
                contrast = count
            jitter.kind[count] = kind
            jitter.numbers[3 * count] = 6.0 * factor if kind == HUE else factor
            jitter.numbers[3 * count + 1] = 1.0 - factor if kind == SATURATION else 0.0
            jitter.numbers[3 * count + 2] = 0.0  # contrast's is known when the mean gray level is
            count += 1
    return count, min(contrast, count)


@inlined
def set_mean(jitter, contrast, mean):
    """Tell contrast the view's mean gray level."""
    jitter.numbers[3 * contrast + 2] = (1.0 - jitter.numbers[3 * contrast]) * mean


@inlined
def recolour(red, green, blue, jitter, start, stop):
    """Operations start, ..., stop - 1 on sixteen pixels."""
    for k in range(start, stop):
        factor = splat(jitter.numbers[3 * k])
        if jitter.kind[k] == HUE:
            red, green, blue = shift_hue(red, green, blue, factor)
        else:
            rest = luma(red, green, blue) * splat(jitter.numbers[3 * k + 1])
            rest = rest + splat(jitter.numbers[3 * k + 2])
            red, green, blue = (
                clamp(red * factor + rest),
                clamp(green * factor + rest),
                clamp(blue * factor + rest),
            )
    return red, green, blue


@inlined
def luma(red, green, blue):
    """The gray level."""
    return red * splat(RED) + green * splat(GREEN) + blue * splat(BLUE)


@inlined
def clamp(x):
    """Into [0, 1]."""
    return minimum(maximum(x, splat(0.0)), splat(1.0))


@inlined
def shift_hue(red, green, blue, shift):
    """Turn the colour wheel by `shift` sixths; the formula is derived at `vissl_zoo.views.colour.shift_hue`."""
    low = minimum(minimum(red, green), blue)
    high = maximum(maximum(red, green), blue)
    chroma = high - low
    distance = (green + blue - red - low) / maximum(chroma, splat(TINY)) + splat(1.0)
    hue = signed_by(distance, green, blue) + shift
    hue = hue - splat(6.0) * floor(hue * splat(1.0 / 6.0))
    red = low + chroma * clamp(absolute(hue - splat(3.0)) - splat(1.0))
    green = high - chroma * clamp(absolute(hue - splat(2.0)) - splat(1.0))
    blue = high - chroma * clamp(absolute(hue - splat(4.0)) - splat(1.0))
    return red, green, blue
