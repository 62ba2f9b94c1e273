"""Three ways to the same random views: ours, lightly's and kornia's, each a contestant.

    pip install lightly==1.6.0 kornia

All do SimSiam's augmentation: random resized crop of 20–100 % (5–20 % for the small views of multi-crop), flip, colour
jitter of 0.4, 0.4, 0.4, 0.1 with probability 0.8, grayscale 0.2, Gaussian blur of 0.1–2 pixels 0.5, normalisation. All
begin with decoded uint8 pixels in memory and end with float32 tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from contestants import Turns
from lightly_loop import InMemory, endless
from pictures import photos
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vissl_zoo.cpu.device import take_device
from vissl_zoo.speed import run_trial
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD, ViewPipeline

IMAGES = 512  # generated ones that the views are taken of


@dataclass(frozen=True)
class ViewCase:
    """Which views of what: two of `size` pixels and `low` of `low_size` of each square image of side `source`."""

    name: str
    source: int
    size: int
    low: int = 0
    low_size: int | None = None
    batch: int = 128

    def pixels(self) -> np.ndarray:
        """The images, uint8 (N, source, source, 3)."""
        return photos(np.random.default_rng(0), min(IMAGES, 4 * self.batch), self.source, self.source)

    def on_device(self, device: torch.device) -> Tensor:
        """The images, uint8 (N, 3, source, source)."""
        return torch.from_numpy(self.pixels()).permute(0, 3, 1, 2).contiguous().to(device)

    def check(self, views: list[Tensor]) -> None:
        """Refuse views of other shapes or types than asked for: all must do the same work."""
        sizes = [self.size] * 2 + [self.low_size] * self.low
        expected = [(self.batch, 3, size, size) for size in sizes]
        if [tuple(view.shape) for view in views] != expected or any(v.dtype != torch.float32 for v in views):
            raise AssertionError(f"views of {[(*v.shape, v.dtype) for v in views]}, not {expected}")


def our_views(turns: Turns, case: ViewCase) -> None:
    """The views of `case` by `ViewPipeline`, a batch at a time on the device."""
    device = take_device()
    pixels = case.on_device(device)
    pipeline = ViewPipeline(case.size, low=case.low, low_size=case.low_size)
    sizes = torch.tensor(pixels.shape[2:]).repeat(case.batch, 1)
    step = 0

    def unit() -> int:
        nonlocal step
        step += 1
        chosen = torch.randint(len(pixels), (case.batch,), device=device)
        case.check(pipeline(pixels.index_select(0, chosen), sizes, step))
        return case.batch

    turns.ready()
    turns.run(unit, device)


def lightly_views(turns: Turns, case: ViewCase, workers: int) -> None:
    """The views of `case` by lightly's transforms, per image, in the workers of a DataLoader."""
    from lightly.transforms import SimSiamTransform
    from lightly.transforms.gaussian_blur import GaussianBlur
    from lightly.transforms.multi_crop_transform import MultiCropTranform
    from torchvision.transforms import v2

    if case.low:
        rest = [  # as its SimSiamViewTransform
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            GaussianBlur(sigmas=(0.1, 2.0), prob=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
        sizes, counts = (case.size, case.low_size), (2, case.low)
        transform = MultiCropTranform(sizes, counts, (0.2, 0.05), (1.0, 0.2), v2.Compose(rest))
    else:
        transform = SimSiamTransform(input_size=case.size)
    loader = DataLoader(
        InMemory(case.pixels(), transform),
        batch_size=case.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = endless(loader)

    def unit() -> int:
        views = next(batches)
        case.check(views)
        return case.batch

    turns.ready()
    turns.run(unit, torch.device("cpu"))


def kornia_views(turns: Turns, case: ViewCase) -> None:
    """The views of `case` by kornia, a batch at a time on the device, from uint8 as ours.

    Of its ways the faster are taken: a plain Sequential, and crops by `slice`, on a CPU twice as fast as `resample`; on
    a GPU, where `slice` goes from image to image, a trial chooses. Its blur has a window of 3 standard deviations to
    each side, ours of 4.
    """
    import kornia.augmentation as K

    def pipeline(mode: str, size: int, scale: tuple[float, float]) -> nn.Module:
        return nn.Sequential(
            K.RandomResizedCrop((size, size), scale=scale, cropping_mode=mode),
            K.RandomHorizontalFlip(0.5),
            K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5),
            K.Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        )

    device = take_device()
    pixels = case.on_device(device)

    def unit_of(mode: str) -> Callable[[], int]:
        ways = [(pipeline(mode, case.size, (0.2, 1.0)), 2)]
        if case.low:
            ways.append((pipeline(mode, case.low_size, (0.05, 0.2)), case.low))

        @torch.no_grad()
        def unit() -> int:
            chosen = torch.randint(len(pixels), (case.batch,), device=device)
            x = pixels.index_select(0, chosen).float() / 255
            case.check([way(x) for way, times in ways for _ in range(times)])
            return case.batch

        return unit

    units = {mode: unit_of(mode) for mode in ("slice", "resample")[: 1 if device.type == "cpu" else 2]}
    fastest = run_trial(units, margin=1.0, device=device).choice if len(units) > 1 else "slice"
    turns.ready()
    turns.run(units[fastest], device)
