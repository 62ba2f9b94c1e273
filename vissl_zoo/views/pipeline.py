"""The views of SimSiam and of multi-crop, rendered in batches on the training device."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from vissl_zoo.views.draws import ATTEMPTS, OPERATIONS, ViewDraws, uniform_table
from vissl_zoo.views.render import Finish, render_views
from vissl_zoo.views.view_crops import choose_boxes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BLUR_WINDOW = 4  # standard deviations to each side: the rest weighs 6e-5, far less than half a gray level
_IDENTITY = torch.tensor([1, 1, 1, 0], dtype=torch.float64)  # factors that change no colour
_LEAST = torch.tensor([0, 0, 0, -0.5], dtype=torch.float64)  # factors may not be smaller


@dataclass(frozen=True)
class ViewPipeline:
    """Random views of a batch: crop and flip, colour jitter, grayscale, blur, normalisation.

    The defaults are SimSiam's augmentation (Chen & He, "Exploring simple Siamese representation learning",
    2021); `low` > 0 adds the low-resolution views of multi-crop (Caron et al., 2020; the paper's App. B has
    2 + 6 at 96 px). `scale` is the crop's share of the image's area and `ratio` its width / height;
    `flip`, `jitter`, `grayscale` and `blur` are probabilities; `brightness`, `contrast`, `saturation` and
    `hue` are half-widths around "no change", as in torchvision's ColorJitter; `sigma` is in pixels of a view.
    With `channels_last` views come in that memory format, for a network that runs in it.

    A view depends on (seed, step), on the image and on its place in the global batch, and on nothing else.
    Raises ValueError when an argument lies outside its range.
    """

    size: int
    _: KW_ONLY
    low_size: int | None = None
    standard: int = 2
    low: int = 0
    scale: tuple[float, float] = (0.2, 1.0)
    low_scale: tuple[float, float] = (0.05, 0.2)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grayscale: float = 0.2
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    seed: int = 0
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __post_init__(self) -> None:
        _check_arguments(self)

    @property
    def sizes(self) -> list[int]:
        """The side in pixels of each of the V views, standard views first."""
        low = [] if self.low_size is None else [self.low_size] * self.low
        return [self.size] * self.standard + low

    def draw(self, batch_size: int, step: int) -> ViewDraws:
        """All random numbers of a global batch of `batch_size` images at optimizer step `step`."""
        views = self.standard + self.low
        widths = [ATTEMPTS, ATTEMPTS, 2, 4, len(OPERATIONS), len(OPERATIONS), 1]
        table = uniform_table(batch_size, views, sum(widths), self.seed, step)
        area, aspect, position, chances, factors, order, sigma = table.split(widths, -1)

        scales = [self.scale] * self.standard + [self.low_scale] * self.low
        least, most = torch.tensor(scales, dtype=torch.float64).view(views, 1, 1, 2).unbind(-1)
        least_ratio, most_ratio = (math.log(limit) for limit in self.ratio)
        log_aspect = least_ratio + (most_ratio - least_ratio) * aspect
        probabilities = torch.tensor([self.flip, self.jitter, self.grayscale, self.blur], dtype=torch.float64)
        flip, jitter, grayscale, blur = (chances < probabilities).unbind(-1)
        spread = torch.tensor([getattr(self, name) for name in OPERATIONS], dtype=torch.float64)
        lowest = torch.maximum(_IDENTITY - spread, _LEAST)
        return ViewDraws(
            area=least + (most - least) * area,
            aspect=torch.from_numpy(np.exp(log_aspect.numpy())),  # not torch.exp: see `choose_boxes`
            position=position,
            flip=flip,
            jitter=jitter,
            factors=lowest + (_IDENTITY + spread - lowest) * factors,
            order=order.argsort(-1),  # of independent uniform numbers: every order is as likely
            grayscale=grayscale,
            blur=blur,
            sigma=self.sigma[0] + (self.sigma[1] - self.sigma[0]) * sigma.squeeze(-1),
        )

    def boxes(self, draws: ViewDraws, sizes: Tensor) -> Tensor:
        """The crops, (V, B, 4) int64: top, left, height, width in pixels of the original.

        sizes (B, 2) integer: height and width of the originals.
        """
        return choose_boxes(draws.area, draws.aspect, draws.position, sizes.cpu(), self.ratio)

    @torch.no_grad()
    def render(self, images: Tensor, sizes: Tensor, draws: ViewDraws) -> list[Tensor]:
        """The V views of a batch, standard views first, each (B, 3, s, s) in `dtype`, normalised.

        images (B, 3, H, W) uint8 on any device: canvases, each a resized copy of its original (the aspect may
        be lost); sizes (B, 2) integer: height and width of the originals; draws of the same B images. `sizes`
        belongs on the CPU: on another device it makes the host wait once.

        Raises ValueError when types, shapes or lengths do not agree.
        """
        sizes = sizes.cpu()
        _check_batch(images, sizes, draws, self.standard + self.low)
        zoom = torch.tensor(images.shape[2:], dtype=torch.float64) / sizes  # (B, 2) canvas per original pixel
        boxes = self.boxes(draws, sizes) * zoom.repeat(1, 2)
        finish = Finish(self.mean, self.std, self.dtype, self.channels_last)
        radius = math.ceil(BLUR_WINDOW * self.sigma[1])
        views = []
        for size, kind in ((self.size, slice(self.standard)), (self.low_size, slice(self.standard, None))):
            if size is not None and len(boxes[kind]):
                views += render_views(images, boxes[kind], draws.of_views(kind), size, radius, finish)
        return views

    def __call__(
        self, images: Tensor, sizes: Tensor, step: int, start: int = 0, global_batch: int | None = None
    ) -> list[Tensor]:
        """Draw, slice and render: the views of images start ... start + B of a global batch at `step`.

        `global_batch` is the number of images over all processes, by default start + B. Raises ValueError as
        `render` does, and when the images do not lie inside the global batch.
        """
        stop = start + len(images)
        total = stop if global_batch is None else global_batch
        if not 0 <= start <= stop <= total:
            raise ValueError(f"images {start} to {stop} do not lie inside a global batch of {total}")
        return self.render(images, sizes, self.draw(total, step)[start:stop])


def _check_arguments(p: ViewPipeline) -> None:
    if p.size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {p.size}")
    if p.standard < 0 or p.low < 0 or p.standard + p.low == 0:
        raise ValueError(f"standard and low must be counts, not both 0, got {p.standard} and {p.low}")
    if p.low and p.low_size is None:
        raise ValueError(f"low={p.low} views need low_size, their side in pixels")
    if p.low_size is not None and p.low_size < 1:
        raise ValueError(f"low_size must be at least 1 pixel, got {p.low_size}")
    for name, largest in (("scale", 1), ("low_scale", 1), ("ratio", math.inf), ("sigma", math.inf)):
        least, most = getattr(p, name)
        if not 0 < least <= most <= largest or most == math.inf:
            limit = "in (0, 1]" if largest == 1 else "above 0"
            raise ValueError(f"{name} must be two numbers {limit}, the smaller first, got {getattr(p, name)}")
    for name in ("flip", "jitter", "grayscale", "blur"):
        if not 0 <= getattr(p, name) <= 1:
            raise ValueError(f"{name} must be a probability in [0, 1], got {getattr(p, name)}")
    for name in OPERATIONS:
        if not 0 <= getattr(p, name) < math.inf or (name == "hue" and p.hue > 0.5):
            limit = "in [0, 0.5]" if name == "hue" else "0 or more"
            raise ValueError(f"{name} must be {limit}, got {getattr(p, name)}")
    if len(p.mean) != 3 or len(p.std) != 3 or not all(s > 0 for s in p.std):
        raise ValueError(f"mean and std must be three numbers each, std above 0, got {p.mean} and {p.std}")
    if not 0 <= p.seed < 2**32:
        raise ValueError(f"seed must lie in [0, 2**32), got {p.seed}")
    if p.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {p.dtype}")


def _check_batch(images: Tensor, sizes: Tensor, draws: ViewDraws, views: int) -> None:
    batch = len(images)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
    if sizes.shape != (batch, 2) or sizes.is_floating_point():
        raise ValueError(f"sizes must be integer ({batch}, 2), got {sizes.dtype} {tuple(sizes.shape)}")
    if (sizes < 1).any():
        raise ValueError(f"sizes must be at least 1 pixel, got {int(sizes.min())}")
    if len(draws) != batch or draws.views != views:
        raise ValueError(f"draws are of {draws.views} views × {len(draws)} images, not {views} × {batch}")
