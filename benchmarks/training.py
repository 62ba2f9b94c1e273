"""Training: our loop from the store to the optimizer, the same step on ready-made views, and lightly's SimSiam.

    pip install lightly==1.6.0
    python benchmarks/training.py --output training.jsonl

SimSiam with ResNet-18, 64 px, batch 128, two views with all of SimSiam's augmentation; on a GPU CIFAR's own setting:
32 px, the CIFAR stem, batch 512. Each contestant is a process of its own that runs in turns with the others (see
contestants.py): ours is train.py itself, in bfloat16 where the hardware computes in it and in float32; lightly is its
documentation's example in float32 with a DataLoader. All train on the same decoded pixels. On a GPU float32 has TF32
convolutions, torch's default, with all of them.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from contestants import Contestant, Missing, Turn, processor_ratio, take_turns
from lightly_loop import lightly_simsiam
from loops import ours, ready_made
from measure import NO_BFLOAT16, Line, Report, Target, compare, default_device, say, with_version
from options import Options, main

from vissl_zoo.networks.bfloat16 import bfloat16_is_native

FASTER = {"bfloat16": Target("≥", 2.2), "float32": Target("≥", 1.25)}
FASTER_ON_GPU = {"bfloat16": Target("≥", 5.0), "float32": Target("≥", 2.5)}
CLOSE = Target("≥", 0.92)  # to the same step on views that lie ready
PRECISIONS = {"bfloat16": "bf16", "float32": "no"}


@dataclass(frozen=True)
class Data:
    """The images."""

    path: str = "shapes"
    """Images of one size, such as CIFAR-10; by default the embedded shapes."""


@dataclass(frozen=True)
class TrainingOptions(Options):
    """What to train, and how long."""

    LEAST = {"workers": 0}

    data: Data = field(default_factory=Data)
    image_size: int | None = None
    """Side of a view in pixels: 64, or 32 on a GPU."""
    batch_size: int | None = None
    """Images of a step: 128, or 512 on a GPU."""
    workers: int | None = None
    """Workers of lightly's DataLoader: 2, or 16 on a GPU."""
    repeats: int = 5
    """Turns of each contestant that count."""
    seconds: float = 6.0
    """Length of a turn: whole steps, one at least."""


def measure(options: TrainingOptions, report: Report) -> None:
    """Run the contestants in turns and report."""
    gpu = torch.cuda.is_available()
    size = options.image_size or (32 if gpu else 64)
    batch = options.batch_size or (512 if gpu else 128)
    workers = options.workers if options.workers is not None else (16 if gpu else 2)
    repeats, seconds = (1, 0.1) if options.quick else (options.repeats, options.seconds)
    model = "simsiam_resnet18_cifar" if gpu else "simsiam_resnet18"
    where = f"ResNet-18{', CIFAR stem' if gpu else ''}, {size} px, batch {batch}, two views"
    flags = ("simsiam_resnet18_cifar10", "--model", model, "--data.path", options.data.path)
    flags += ("--image-size", str(size), "--batch-size", str(batch), "--views.blur", "0.5")
    precisions = [name for name in PRECISIONS if name == "float32" or bfloat16_is_native(default_device())]

    with contextlib.ExitStack() as stack:
        runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started: dict[str, Contestant] = {}

        def start(name: str, target: Callable[..., None], *arguments: Any) -> None:
            say(f"training: starting {name}")
            started[name] = stack.enter_context(Contestant(name, target, *arguments))

        for precision in precisions:
            for name, target in (("ours", ours), ("ready-made", ready_made)):
                folder = ("--output-dir", str(runs / f"{name}-{precision}"))
                start(
                    f"{name}, {precision}",
                    target,
                    (*flags, "--mixed-precision", PRECISIONS[precision], *folder),
                )
        reason = None
        try:
            start("lightly", lightly_simsiam, options.data.path, size, batch, workers, gpu)
        except Missing as error:
            reason = f"{error}: pip install lightly==1.6.0"
        turns = take_turns(started, repeats, seconds)
    for line in lines(where, turns, reason, FASTER_ON_GPU if gpu else FASTER):
        report.add(line)


def lines(
    where: str, turns: dict[str, list[Turn]], reason: str | None, faster: dict[str, Target]
) -> list[Line]:
    """What was found in each precision; `reason` is why lightly is missing."""
    against = with_version("lightly") + ", its documentation's SimSiam, float32"
    found = []
    for precision, target in faster.items():
        name = f"training: {precision}, {where}"
        close = f"training: {precision}, end to end beside ready-made views, {where}"
        if f"ours, {precision}" not in turns:
            found.append(Line(name, "images/s", target=target, reason=NO_BFLOAT16))
            found.append(Line(close, "images/s", target=CLOSE, reason=NO_BFLOAT16))
            continue
        ours, ready = turns[f"ours, {precision}"], turns[f"ready-made, {precision}"]
        if reason is None:
            found.append(beside(name, ours, turns["lightly"], against, target))
        else:
            found.append(Line(name, "images/s", against=against, target=target, reason=reason))
        found.append(beside(close, ours, ready, "the same step on ready-made views", CLOSE))
    return found


def beside(name: str, ours: list[Turn], peer: list[Turn], against: str, target: Target) -> Line:
    """One comparison of images/s, with the same by processor time in its details."""
    details = {"ratio_of_processor_time": processor_ratio(ours, peer)}
    rates = ([turn.rate for turn in turns] for turns in (ours, peer))
    return compare(name, "images/s", *rates, against=against, target=target, details=details)


if __name__ == "__main__":
    sys.exit(main("training", TrainingOptions(), __doc__, measure))
