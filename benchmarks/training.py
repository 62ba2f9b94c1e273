"""Training: our loop from the store to the optimizer, the same step on ready-made views, and lightly's SimSiam.

    pip install lightly==1.6.0
    python benchmarks/training.py --output training.jsonl

SimSiam with ResNet-18, 64 px, batch 128, two views with all of SimSiam's augmentation; on a GPU CIFAR's own setting:
32 px, the CIFAR stem, batch 512. Each contestant is a process of its own that runs in turns with the others (see
contestants.py): ours is train.py itself in the precision that its trial picks, and once more in plain float32; lightly
is its documentation's example in float32 with a DataLoader. All train on the same decoded pixels. On a GPU float32 has
TF32 convolutions, torch's default, with all of them.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from contestants import Contestant, Missing, Turn
from lightly_loop import lightly_simsiam
from loops import ours, ready_made
from measure import Line, Report, Target, compare, say, with_version
from options import Options, main

EPOCHS, CIFAR_IMAGES = 200, 50_000


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
    compile: Literal["off", "on"] = "off"
    """--compile of train.py."""
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
    flags += ("--compile", options.compile)

    with contextlib.ExitStack() as stack:
        runs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started: dict[str, Contestant] = {}

        def start(name: str, target: Callable[..., None], *arguments: Any) -> Contestant:
            say(f"training: starting {name}")
            started[name] = stack.enter_context(Contestant(name, target, *arguments))
            return started[name]

        def in_precision(name: str) -> tuple[str, ...]:
            return (*flags, "--mixed-precision", name)

        folders = iter(("--output-dir", str(runs / str(number))) for number in range(9))
        precision = start("ours", ours, (*flags, *next(folders))).info["precision"]
        start("ours, float32", ours, (*in_precision("no"), *next(folders)))
        start("ready-made", ready_made, (*in_precision(precision), *next(folders)))
        start("ready-made, float32", ready_made, (*in_precision("no"), *next(folders)))
        reason = None
        try:
            start("lightly", lightly_simsiam, options.data.path, size, batch, workers, gpu)
        except Missing as error:
            reason = f"{error}: pip install lightly==1.6.0"
        turns = take_turns(started, repeats, seconds)
        rates = {name: [turn.rate for turn in taken] for name, taken in turns.items()}
        memory = {name: started[name].memory(seconds) for name in started if "ready" not in name}

    details = {"precision": "float32" if precision == "no" else precision, "workers_of_lightly": workers}
    for line in lines(where, rates, memory, reason, gpu):
        line.details.update(details)
        if line.ratio is not None and line.unit == "images/s":
            other = "ready-made" if "ready-made" in line.name else "lightly"
            line.details["ratio_of_processor_time"] = processor_ratio(turns["ours"], turns[other])
        report.add(line)


def take_turns(started: dict[str, Contestant], repeats: int, seconds: float) -> dict[str, list[Turn]]:
    """The turns of each contestant, one after the other, after one of each that does not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in started}
    for repeat in range(repeats + 1):
        for name, contestant in started.items():
            turn = contestant.turn(seconds)
            if repeat:
                turns[name].append(turn)
        say(
            f"turn {repeat} of {repeats}: {', '.join(f'{n} {t[-1].rate:.4g}/s' for n, t in turns.items() if t)}"
        )
    return turns


def processor_ratio(ours: list[Turn], peer: list[Turn]) -> float | None:
    """Median ratio of images for one core's second; None where the system does not tell, or on a GPU means little."""
    pairs = [(a.processor_rate, b.processor_rate) for a, b in zip(ours, peer, strict=True)]
    return None if any(None in pair for pair in pairs) else median(a / b for a, b in pairs)


def lines(
    where: str, rates: dict[str, list[float]], memory: dict[str, int | None], reason: str | None, gpu: bool
) -> list[Line]:
    """What was found, `rates` in images/s and `memory` in bytes by contestant; `reason` is why lightly is missing."""
    against = with_version("lightly") + ", its documentation's SimSiam, float32"
    times, close = (Target("≥", 5.0), Target("≥", 0.9)) if gpu else (Target("≥", 2.2), Target("≥", 0.92))
    name, held = f"training: {where}", f"training: peak memory, {where}"
    found = []
    if reason is None:
        found.append(
            compare(
                name,
                "images/s",
                rates["ours"],
                rates["lightly"],
                float32=rates["ours, float32"],
                against=against,
                target=times,
            )
        )
    else:
        found.append(Line(name, "images/s", against=against, target=times, reason=reason))
    ready = compare(
        f"training: end to end beside ready-made views, {where}",
        "images/s",
        rates["ours"],
        rates["ready-made"],
        against="the same step on ready-made views",
        target=close,
    )
    plain = compare("", "", rates["ours, float32"], rates["ready-made, float32"])  # neighbours of their own
    ready.details["float32"] = {"ours": plain.ours, "ready_made": plain.peer}
    found.append(Line(**{**vars(ready), "float32_ratio": plain.ratio}))
    found.append(memory_line(held, memory, against, reason))
    if gpu:
        rate = found[1].ours
        minutes = EPOCHS * CIFAR_IMAGES / rate / 60
        speed = Line(f"training: images/s on this GPU, {where}", "images/s", rate, None)
        found.append(Line(**{**vars(speed), "difference": rate, "target": Target("≥", 10_000)}))
        whole = f"training: {EPOCHS} epochs of {CIFAR_IMAGES:,} images, from images/s, {where}"
        found.append(Line(whole, "minutes", minutes, difference=minutes, target=Target("≤", 18)))
    return found


def memory_line(name: str, memory: dict[str, int | None], against: str, reason: str | None) -> Line:
    """Peak memory of the process trees in GiB."""
    target = Target("≤", 1.0)
    if reason is None and None in memory.values():
        reason = "only Linux tells it"
    if reason is not None:
        return Line(name, "GiB", against=against, target=target, reason=reason)
    ours, peer, plain = (memory[n] / 2**30 for n in ("ours", "lightly", "ours, float32"))
    return Line(
        name, "GiB", ours, peer, against, ours / peer, float32_ratio=plain / peer, target=target, repeats=1
    )


if __name__ == "__main__":
    sys.exit(main("training", TrainingOptions(), __doc__, measure))
