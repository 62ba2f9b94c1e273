"""Scoring a folder of photos: `embed` beside timm's own inference loop, and what κ costs.

    python benchmarks/scoring.py --output scoring.jsonl          # timm is a dependency of the project

ResNet-18 at 224 px over generated JPEGs of several sizes, or the images in --data.path. The peer does what timm's
inference.py does: its ImageDataset, create_loader with its evaluation transform (PIL) and two workers, float32, the
bare network without a classifier, and embeddings as NumPy arrays as a result. Ours has a κ head on top of that, and
runs in bfloat16 where the hardware computes in it, and in float32. A turn is a pass over the whole folder.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import timm
import torch
from contestants import Contestant, Turns, take_turns
from measure import NO_BFLOAT16, Line, Report, Target, default_device, say, with_version
from options import Options, main
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from training import beside

import vissl_zoo  # noqa: F401  (registers the models)
from vissl_zoo.cpu.device import take_device
from vissl_zoo.data import open_images
from vissl_zoo.inference import embed, forward
from vissl_zoo.networks.bfloat16 import bfloat16_is_native

MODEL, PEER_MODEL, SIZE = "vi_simsiam_resnet18", "resnet18", 224
PHOTO_SIZES = ((480, 640), (640, 480), (375, 500), (768, 1024), (600, 600))  # height, width
FASTER = {"bfloat16": Target("≥", 2.2), "float32": Target("≥", 1.25)}


@dataclass(frozen=True)
class Data:
    """The photos."""

    path: str | None = None
    """A folder of images; by default photos are generated."""


@dataclass(frozen=True)
class ScoringOptions(Options):
    """What to score, and how often."""

    LEAST = {"workers": 0}

    data: Data = field(default_factory=Data)
    photos: int = 512
    """How many photos are generated."""
    workers: int | None = None
    """Workers of timm's loader, and threads that decode for ours: 2, or 16 on a GPU."""
    repeats: int = 3
    """Passes of each that count."""


def measure(options: ScoringOptions, report: Report) -> None:
    """Score in turns, then count κ's operations."""
    workers = options.workers if options.workers is not None else (16 if torch.cuda.is_available() else 2)
    against = f"{with_version('timm')}, its inference loop, float32, {workers} workers"
    with contextlib.ExitStack() as stack:
        folder = options.data.path
        if folder is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            folder = str(write_photos(Path(scratch) / "photos", 8 if options.quick else options.photos))
        say("scoring: starting")
        started = {
            name: stack.enter_context(Contestant(name, target, folder, *arguments))
            for name, target, arguments in (
                ("bfloat16", ours, (True, workers)),
                ("float32", ours, (False, workers)),
                ("timm", peer, (workers,)),
            )
            if name != "bfloat16" or bfloat16_is_native(default_device())
        }
        turns = take_turns(started, 1 if options.quick else options.repeats, 0.0)
    for precision, target in FASTER.items():
        name = f"scoring: {precision}, a folder of photos, ResNet-18, {SIZE} px"
        if precision in turns:
            report.add(beside(name, turns[precision], turns["timm"], against, target))
        else:
            report.add(Line(name, "images/s", target=target, reason=NO_BFLOAT16))
    report.add(kappa_share())


def ours(turns: Turns, folder: str, bfloat16: bool, workers: int) -> None:
    """`embed` over the whole folder, as `vissl-zoo score` calls it, in one precision or the other."""
    forward.bfloat16_is_native = lambda device: bfloat16
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=0).eval().to(take_device())
    table = open_images(folder)

    def unit() -> int:
        scored = list(embed(model, table, SIZE, workers=max(1, workers)))
        assert all(error is None for batch in scored for error in batch.errors)
        return sum(len(batch.rows) for batch in scored)

    turns.ready()
    turns.run(unit, default_device())


def peer(turns: Turns, folder: str, workers: int) -> None:
    """timm's inference.py: dataset, loader, transform and loop, ending in the embeddings as one array."""
    from timm.data import create_dataset, create_loader

    device = default_device()
    model = timm.create_model(PEER_MODEL, num_classes=0).eval().to(device)
    cfg = {"input_size": (3, SIZE, SIZE), "crop_pct": 0.875, "interpolation": "bilinear"}
    loader = create_loader(
        create_dataset(name="", root=folder),
        batch_size=256 if device.type == "cuda" else 32,  # on a CPU 256, its default, is slower
        use_prefetcher=True,
        num_workers=workers,
        device=device,
        **cfg,
    )

    @torch.inference_mode()
    def unit() -> int:
        return len(np.concatenate([model(x).cpu().numpy() for x, _ in loader]))

    turns.ready()
    turns.run(unit, device)


def kappa_share() -> Line:
    """κ's share of the floating-point operations of a forward pass."""
    model, x = timm.create_model(MODEL, num_classes=0).eval(), torch.randn(2, 3, SIZE, SIZE)

    @torch.inference_mode()
    def gigaflops(call) -> float:
        with FlopCounterMode(display=False) as counter:
            call(x)
        return counter.get_total_flops() / len(x) / 1e9

    bare = gigaflops(model)
    kappa = gigaflops(model.represent) - bare
    name, target = f"scoring: κ's FLOPs, ResNet-18, {SIZE} px", Target("≤", 0.01)
    return Line(name, "GFLOPs an image", kappa, bare, "the backbone", kappa / bare, target=target, repeats=1)


def write_photos(folder: Path, count: int) -> Path:
    """A folder of `count` JPEGs in the `PHOTO_SIZES` by turns, so that the benchmark runs anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = Image.fromarray(photo(rng, *PHOTO_SIZES[number % len(PHOTO_SIZES)]))
        picture.save(folder / f"{number:05}.jpg", quality=90)
    return folder


def photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture uint8 (height, width, 3): coloured noise whose amplitude falls as 1/f, as that of photos does."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    white = rng.standard_normal((3, height, width), dtype=np.float32)
    smooth = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    smooth /= smooth.std(axis=(1, 2), keepdims=True)
    smooth[1:] = 0.6 * smooth[1:] + 0.6 * smooth[:1]  # channels of a photo resemble each other
    return np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8).transpose(1, 2, 0)


if __name__ == "__main__":
    sys.exit(main("scoring", ScoringOptions(), __doc__, measure))
