"""The random numbers of a batch of views, drawn on the CPU from (seed, step) and from nothing else.

They are drawn for the global batch and sliced by rank, so one process and eight train on the same views.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

ATTEMPTS = 10  # crops tried before the central fallback, as in torchvision's RandomResizedCrop
OPERATIONS = ("brightness", "contrast", "saturation", "hue")  # columns of `factors`, values of `order`


@dataclass(frozen=True, eq=False)
class ViewDraws:
    """What was drawn for V views of B images; every tensor is on the CPU and begins with (V, B).

    `draws[start:stop]` keeps those images (a rank's part of the global batch); `len(draws)` is B.
    """

    area: Tensor  # (V, B, 10) float64: crop area as a fraction of the original, one per attempt
    aspect: Tensor  # (V, B, 10) float64: crop width / height, one per attempt
    position: Tensor  # (V, B, 2) float64 in [0, 1): where the crop lies in its free room, down and across
    flip: Tensor  # (V, B) bool: mirrored left to right
    jitter: Tensor  # (V, B) bool: colours jittered; where it is False `factors` and `order` go unused
    factors: Tensor  # (V, B, 4) float64: brightness, contrast, saturation, hue (in turns of the colour wheel)
    order: Tensor  # (V, B, 4) int64: indices into OPERATIONS, first applied first
    grayscale: Tensor  # (V, B) bool: turned to gray
    blur: Tensor  # (V, B) bool: blurred; where it is False `sigma` goes unused
    sigma: Tensor  # (V, B) float64: standard deviation of the blur in pixels of the view

    def __len__(self) -> int:
        return self.flip.shape[1]

    def __getitem__(self, images: slice) -> ViewDraws:
        if not isinstance(images, slice):
            raise TypeError(f"draws are sliced by images, draws[start:stop], not indexed by {images!r}")
        return ViewDraws(**{f.name: getattr(self, f.name)[:, images] for f in fields(self)})

    def of_views(self, views: slice) -> ViewDraws:
        """The draws of some of the views, of all images."""
        return ViewDraws(**{f.name: getattr(self, f.name)[views] for f in fields(self)})

    @property
    def views(self) -> int:
        """The number of views V."""
        return self.flip.shape[0]


def uniform_table(batch_size: int, views: int, columns: int, seed: int, step: int) -> Tensor:
    """Uniform numbers in [0, 1), (V, B, columns) float64.

    An image's numbers do not depend on `batch_size`: a smaller batch sees the beginning of the same table.
    """
    generator = torch.Generator().manual_seed(_stream(seed, step))
    table = torch.rand(batch_size, views, columns, generator=generator, dtype=torch.float64)
    return table.transpose(0, 1)


def _stream(seed: int, step: int) -> int:
    """The generator seed of a step, 32 bits, which is all that torch's CPU generator keeps.

    A plain `seed + step` would give two runs with neighbouring seeds the same views one step apart, so the
    seed is mixed first. Both mixes are bijections: no two steps of a run share a stream.
    """
    return _mix(_mix(seed) ^ step & 0xFFFFFFFF)


def _mix(x: int) -> int:
    """The 32-bit finaliser of MurmurHash3 (Appleby, 2011): every input bit reaches every output bit."""
    x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16
