"""Scoring a folder of photos: `embed` beside timm's own inference loop, and what κ costs.

    python benchmarks/scoring.py --output scoring.jsonl          # timm is a dependency of the project

ResNet-18 at 224 px over generated JPEGs of several sizes, or the images in --data.path. The peer does what timm's
inference.py does: its ImageDataset, create_loader with its evaluation transform (PIL) and two workers, float32, the
bare network without a classifier, and embeddings as NumPy arrays as a result. Ours has a κ head on top of that.
A turn is a pass over the whole folder; the first, in which ours makes its trial, is in `details`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import timm
import torch
from contestants import Contestant, Turn, Turns
from measure import Line, Report, Target, compare, default_device, in_turns, say, with_version
from options import Options, main
from pictures import write_folder
from torch.utils.flop_counter import FlopCounterMode
from training import processor_ratio

import vissl_zoo  # noqa: F401  (registers the models)
from vissl_zoo.cpu.device import take_device
from vissl_zoo.data import open_images
from vissl_zoo.inference import embed

MODEL, PEER_MODEL, SIZE = "vi_simsiam_resnet18", "resnet18", 224
SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp")


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
    """Workers of timm's loader: 2, or 16 on a GPU."""
    repeats: int = 3
    """Passes of each that count."""


def measure(options: ScoringOptions, report: Report) -> None:
    """Score, then take κ apart."""
    workers = options.workers if options.workers is not None else (16 if torch.cuda.is_available() else 2)
    repeats = 1 if options.quick else options.repeats
    with contextlib.ExitStack() as stack:
        folder = options.data.path
        if folder is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            count = 8 if options.quick else options.photos
            folder = str(write_folder(Path(scratch) / "photos", count))
        say("scoring: starting")
        started = {
            name: stack.enter_context(Contestant(name, target, folder, *arguments))
            for name, target, arguments in (
                ("ours", ours, (False, workers)),
                ("ours, float32", ours, (True, workers)),
                ("timm", peer, (workers,)),
            )
        }
        turns: dict[str, list[Turn]] = {name: [] for name in started}
        for repeat in range(repeats + 1):
            for name, contestant in started.items():
                turns[name].append(contestant.turn(0.0))
            say(
                f"pass {repeat} of {repeats}: {', '.join(f'{n} {t[-1].rate:.3g}/s' for n, t in turns.items())}"
            )
    first = {name: taken.pop(0).rate for name, taken in turns.items()}
    rates = {name: [turn.rate for turn in taken] for name, taken in turns.items()}
    line = compare(
        f"scoring: a folder of photos, ResNet-18, {SIZE} px",
        "images/s",
        rates["ours"],
        rates["timm"],
        float32=rates["ours, float32"],
        against=f"{with_version('timm')}, its inference loop, float32, {workers} workers",
        target=Target("≥", 2.2),
        details={
            "first_pass": first,
            "ratio_of_processor_time": processor_ratio(turns["ours"], turns["timm"]),
        },
    )
    report.add(line)
    batch = 256 if default_device().type == "cuda" else 16  # of 16 a GPU does nothing but start its kernels
    for line in kappa_share(1 if options.quick else 12, 2 if options.quick else batch):
        report.add(line)


def ours(turns: Turns, folder: str, exact: bool, workers: int) -> None:
    """`embed` over the whole folder, as `vissl-zoo score` calls it; `exact` is plain float32.

    As many threads decode as timm has workers.
    """
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=0).eval().to(take_device())
    table = open_images(folder)

    def unit() -> int:
        scored = list(embed(model, table, SIZE, exact=exact, workers=max(1, workers)))
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


def kappa_share(repeats: int, batch: int) -> list[Line]:
    """κ's share of the FLOPs and of the time of a forward pass in float32."""
    device = default_device()
    model = timm.create_model(MODEL, num_classes=0).eval().to(device)
    x = torch.randn(batch, 3, SIZE, SIZE, device=device)

    @torch.inference_mode()
    def flops(call) -> int:
        with FlopCounterMode(display=False) as counter:
            call(x)
        return counter.get_total_flops()

    with torch.inference_mode():
        calls = {
            "plain": lambda: model(x),
            "represent": lambda: model.represent(x),
            "again": lambda: model(x),
        }
        seconds = in_turns(calls, max(2, repeats), device=device)
    with_kappa, plain = flops(model.represent), flops(model)
    where = f"ResNet-18, {SIZE} px, batch {batch}"
    share = Line(
        f"scoring: κ's FLOPs, {where}",
        "GFLOPs an image",
        (with_kappa - plain) / batch / 1e9,
        plain / batch / 1e9,
        "the backbone",
        (with_kappa - plain) / plain,
        target=Target("≤", 0.01),
        repeats=1,
    )
    # Noise is what a pass differs from the same pass two turns later: the middle half of these differences.
    noise = spread_of([b / a - 1 for a, b in zip(seconds["plain"], seconds["again"], strict=True)])
    extra = [
        r / ((a + b) / 2) - 1
        for r, a, b in zip(seconds["represent"], seconds["plain"], seconds["again"], strict=True)
    ]
    bare = median(seconds["plain"] + seconds["again"])
    time = Line(
        f"scoring: κ's time within noise, {where}",
        "ms",
        1e3 * median(seconds["represent"]),
        1e3 * bare,
        "the bare forward pass",
        median(seconds["represent"]) / bare,
        spread=(1 + min(extra), 1 + max(extra)),
        difference=100 * median(extra),
        target=Target("≤", round(100 * max(noise, 0.01), 2)),
        repeats=len(extra),
        details={"difference_unit": "% of the forward pass", "noise_percent": 100 * noise},
    )
    return [share, time]


def spread_of(values: list[float]) -> float:
    """Half the distance between the quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


if __name__ == "__main__":
    sys.exit(main("scoring", ScoringOptions(), __doc__, measure))
