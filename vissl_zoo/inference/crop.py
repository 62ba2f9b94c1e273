"""The one central crop: timm's evaluation transform of a model, for every command."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from timm.data.config import resolve_data_config
from timm.data.transforms import str_to_pil_interp
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")  # by timm's names
_LONGEST_RATIO = 50  # of the sides, up to which a whole image is resized


@dataclass(frozen=True)
class CentralCrop:
    """What a model sees of an image when it is evaluated; `central_crop` makes it.

    Attributes:
        size: side of the crop in pixels.
        crop_pct: `size` over the short side of the resized image, as timm has it.
        crop_mode: timm's "center", "squash" or "border".
        interpolation: of the resize, by timm's name.
        mean, std: of each channel, of pixels in [0, 1], by which the model's input is normalised.
    """

    size: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def short(self) -> int:
        """The short side in pixels to which an image is resized."""
        return math.floor(self.size / self.crop_pct)

    def crop(self, image: Image) -> np.ndarray:
        """The crop of an RGB image, uint8 (s, s, 3), in the very pixels of timm's evaluation transform.

        That resizes the whole image first: of 1 × 30,000 pixels to gigabytes. Beyond a ratio of 50 see `crop_fast`.
        """
        if self.crop_mode == "center" and max(image.size) > _LONGEST_RATIO * min(image.size):
            return self.crop_fast(image, (image.height, image.width))
        return self._transform(image).permute(1, 2, 0).numpy()

    def crop_fast(self, image: Image, original: tuple[int, int]) -> np.ndarray:
        """As `crop`, but only what is shown is resized, and the result is a few grey levels off.

        Args:
            image: RGB; it may have been decoded at a fraction of its size.
            original: its (height, width) before that, which decides on the geometry.
        """
        if self.crop_mode != "center":
            return self.crop(image)
        if (image.height, image.width, *self.box(*original)[2:]) == (self.size,) * 4:
            return np.asarray(image)
        box = self.seen(image, original)
        method = str_to_pil_interp(self.interpolation)
        return np.asarray(image.resize((self.size, self.size), method, box=box, reducing_gap=3.0))

    def seen(self, image: Image, original: tuple[int, int]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of what the crop shows, in the pixels of `image`; see `crop_fast`."""
        if self.crop_mode != "center":
            return 0, 0, *image.size
        top, left, height, width = self.box(*original)
        across, down = image.width / original[1], image.height / original[0]
        return left * across, top * down, (left + width) * across, (top + height) * down

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """(top, left, height, width) of what the crop shows of an image, in its pixels, by timm's rounding."""
        long = int(self.short * max(height, width) / min(height, width))
        resized = (self.short, long) if height <= width else (long, self.short)
        scale = height / resized[0], width / resized[1]
        top, left = (round((side - self.size) / 2) for side in resized)
        return top * scale[0], left * scale[1], self.size * scale[0], self.size * scale[1]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (B, 3, s, s) -> float32 as the model takes them, in the same memory format."""
        mean, std = torch.tensor((self.mean, self.std), device=pixels.device).view(2, 3, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)

    @cached_property
    def _transform(self) -> Any:
        return create_transform(
            (3, self.size, self.size),
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=self.interpolation,
            mean=self.mean,
            normalize=False,
        )


def central_crop(model: nn.Module, image_size: int | None = None) -> CentralCrop:
    """The crop that timm's configuration of a model asks for; timm's defaults for a model without one.

    Args:
        model: any model.
        image_size: side of the crop in pixels; by default the model's own.

    Raises:
        ValueError: an entry of the configuration is none that an image can be prepared by.
    """
    config = resolve_data_config(model=model)
    check_entries(config)
    kept = {name: config[name] for name in ("crop_pct", "crop_mode", "interpolation")}
    size = image_size or config["input_size"][-1]
    return CentralCrop(size, mean=tuple(config["mean"]), std=tuple(config["std"]), **kept)


def check_entries(config: Mapping[str, Any]) -> None:
    """Refuse entries of a timm configuration that no image can be prepared by; those that are absent are timm's.

    Raises:
        ValueError: one line that names the entry.
    """
    for key, (fits, must) in _ENTRIES.items():
        if config.get(key) is not None and not fits(config[key]):
            raise ValueError(f"pretrained_cfg has {key} = {config[key]!r}, and it must be {must}")


def _numbers(value: Any, least: float) -> bool:
    """Whether a value is a sequence of finite numbers of at least `least`; booleans are no numbers."""
    known = isinstance(value, (tuple, list)) and all(type(v) in (int, float) for v in value)
    return known and len(value) > 0 and all(least <= v < math.inf for v in value)


_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "input_size": (
        lambda v: _numbers(v, 1) and len(v) == 3 and all(type(n) is int for n in v),
        "three whole numbers, channels, height and width",
    ),
    "mean": (lambda v: _numbers(v, -math.inf), "finite numbers, one for each channel"),
    "std": (lambda v: _numbers(v, 1e-12), "positive numbers, one for each channel"),
    "crop_pct": (lambda v: _numbers([v], 1e-3), "a positive number"),
    "crop_mode": (lambda v: v in ("center", "squash", "border"), "center, squash or border"),
    "interpolation": (
        lambda v: v in (*INTERPOLATIONS, "random"),
        f"one of {', '.join(INTERPOLATIONS)}",
    ),
}
