"""Accuracy is not paid for speed: kNN after training the fast way and after training the plain way, by paired seeds.

    python benchmarks/accuracy.py --data.path cifar10/ --output accuracy.jsonl

The fast way is train.py: the precision that its trial picks, batched views. The plain way is PIL images through
torchvision's transforms and float32 (plain.py). Both start from the same weights, see the images in the same order
and are evaluated by the same float32 pass. Two sets: the demo (shapes, a small ResNet), and 10 epochs of the same
network on the first 10,000 images of the CIFAR-10 in --data.path. It is long; runs are kept in --output-dir and not
made again, and one that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev

import timm
import torch
from measure import Line, Report, Target, say
from options import Options, main

import vissl_zoo  # noqa: F401  (registers the models)
from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.neighbours import knn
from vissl_zoo.inference import embed_all
from vissl_zoo.methods import RECIPES
from vissl_zoo.recipes import parse

PLAIN = Path(__file__).with_name("plain.py")
LEAST = -0.5  # points that the fast way may lose
PHOTO_FLAGS = (
    *("--views.scale", "0.2", "1.0", "--views.brightness", "0.4", "--views.contrast", "0.4"),
    *("--warmup-epochs", "0"),  # of so few epochs
)


@dataclass(frozen=True)
class Data:
    """The photos."""

    path: str | None = None
    """CIFAR-10 or the like, with a test split; without it only the demo is run."""


@dataclass(frozen=True)
class AccuracyOptions(Options):
    """What to train."""

    LEAST = {"seeds": 0, "photo_seeds": 0, "images": 0}

    data: Data = field(default_factory=Data)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the demo, each trained both ways."""
    photo_seeds: tuple[int, ...] = tuple(range(8))
    """Seeds of the photos: after so few epochs three have a standard error of a point."""
    demo_epochs: int | None = None
    """Epochs of the demo; by default its own."""
    epochs: int = 10
    """Epochs on the images in --data.path."""
    images: int = 10_000
    """How many of these to train on, 0 for all."""
    precision: str = "auto"
    """Precision of the fast way: `auto` for the trial's choice, or `bf16` to see what it would do."""
    output_dir: str = "runs/accuracy"
    """Where the runs are kept."""
    minutes: float | None = None
    """Begin no run after this long; the next call goes on."""


@dataclass(frozen=True)
class Set:
    """A data set and how to train on it: train.py's flags, how many of the images (0: all), and the seeds."""

    name: str
    path: str
    images: int
    flags: tuple[str, ...]
    seeds: tuple[int, ...]


def sets_of(options: AccuracyOptions) -> list[Set]:
    """The sets that can be run."""
    epochs = () if options.demo_epochs is None else ("--epochs", str(options.demo_epochs))
    if options.quick:
        epochs = ("--max-steps", "2")
    demo = "the demo" if options.demo_epochs is None else f"{options.demo_epochs} epochs of the demo"
    sets = [Set(demo, "shapes", 256 if options.quick else 0, epochs, options.seeds)]
    if options.data.path is not None:
        steps = ("--max-steps", "2") if options.quick else ("--epochs", str(options.epochs))
        images = 256 if options.quick else options.images
        name = f"{options.epochs} epochs of {images or 'all'} photos"
        sets.append(Set(name, options.data.path, images, (*PHOTO_FLAGS, *steps), options.photo_seeds))
    return sets


def measure(options: AccuracyOptions, report: Report) -> None:
    """Train and evaluate what is not there yet, then report every set that has finished pairs."""
    started = time.monotonic()
    for data in sets_of(options):
        open_images(data.path, split="test")  # what cannot be opened is not found out after hours of training
    for data in sets_of(options):
        seeds = data.seeds[:1] if options.quick else data.seeds
        found: dict[str, list[dict]] = {"batched": [], "pil": []}
        for seed in seeds:
            for way, results in found.items():
                over = options.minutes is not None and time.monotonic() - started > 60 * options.minutes
                result = run(data, way, seed, options, begin=not over)
                if result is not None:
                    results.append(result)
        report.add(line(data.name, found, len(seeds)))
    if options.data.path is None:
        name = title(f"{options.epochs} epochs of {options.images} photos")
        reason = "no --data.path to CIFAR-10 was given"
        report.add(Line(name, "kNN top-1", target=Target("≥", LEAST), reason=reason))


def run(data: Set, way: str, seed: int, options: AccuracyOptions, *, begin: bool) -> dict | None:
    """Top-1 and precision of one run, made if it is not there and may begin; None if it is not there."""
    size = "-quick" if options.quick else ""
    folder = Path(options.output_dir) / f"{data.name.replace(' ', '-')}{size}" / f"{way}-{seed}"
    flags = ("demo", *data.flags, "--data.path", data.path, "--seed", str(seed))
    if way == "batched":
        flags += ("--mixed-precision", options.precision)
    # The recipe in full: a run of an earlier recipe with the same flags is another run.
    key = {"images": data.images, "recipe": json.loads(json.dumps(asdict(parse(flags, RECIPES))))}
    done = folder / "knn.json"
    kept = json.loads(done.read_text()) if done.exists() else None
    if kept is not None and kept.get("key") == key:
        return kept
    if not begin:
        return None
    if kept is not None:  # of another recipe: to be made anew
        shutil.rmtree(folder)
    say(f"accuracy: {data.name}, {way}, seed {seed}")
    resume = ("--resume",) if kept is None and any((folder / "checkpoints").glob("*")) else ()
    command = [sys.executable, str(PLAIN), way, str(data.images), *flags, "--no-report"]
    finished = subprocess.run([*command, "--output-dir", str(folder), *resume], check=False)
    if finished.returncode:
        raise UserError(f"this command ended with code {finished.returncode}: {' '.join(command)}")
    precision = json.loads((folder / "recipe.json").read_text())["mixed_precision"]
    result = {"key": key, "top1": evaluate(folder, data.path, options.quick), "precision": precision}
    done.write_text(json.dumps(result) + "\n")
    return result


def evaluate(folder: Path, path: str, quick: bool) -> float:
    """kNN top-1 of a run's export, in plain float32, on the test split."""
    model = timm.create_model(f"local-dir:{folder / 'export'}", pretrained=True, num_classes=0).eval()
    size = model.pretrained_cfg["input_size"][-1]
    features, labels = [], []
    for split in ("train", "test"):
        table = open_images(path, split=split)
        rows = torch.arange(min(len(table), 200 if quick else 10_000)).numpy()
        features.append(embed_all(model, table, size, rows=rows))
        labels.append(table.labels[features[-1].rows])
    return knn(features[0].embedding, labels[0], features[1].embedding, labels[1]).top1


def title(name: str) -> str:
    """The name of a set's line."""
    return f"accuracy: {name}, kNN top-1 trained fast beside trained plainly"


def line(name: str, found: dict[str, list[dict]], seeds: int) -> Line:
    """The means of both ways over the seeds that have both, and the mean difference in points.

    Two trainings from the same weights part for good after a few steps, so that even equal ways differ by points
    from seed to seed: the standard error of the mean difference stands beside it.
    """
    pairs = list(zip(found["batched"], found["pil"], strict=False))
    target, against = Target("≥", LEAST), "PIL, torchvision, float32"
    if len(pairs) < seeds:
        reason = f"{len(pairs)} of {seeds} pairs are finished: call it again"
        return Line(title(name), "kNN top-1", against=against, target=target, reason=reason)
    fast, plain = ([pair[i]["top1"] for pair in pairs] for i in (0, 1))
    points = [100 * (a - b) for a, b in zip(fast, plain, strict=True)]
    return Line(
        title(name),
        "kNN top-1",
        mean(fast),
        mean(plain),
        against,
        difference=round(mean(points), 6),  # of tenths and hundredths: -0.5 is to be -0.5
        target=target,
        repeats=seeds,
        details={
            "difference_unit": "points",
            "standard_error": stdev(points) / len(points) ** 0.5 if len(points) > 1 else None,
            "fast": fast,
            "plain": plain,
            "precision": sorted({pair[0]["precision"] for pair in pairs}),
        },
    )


if __name__ == "__main__":
    sys.exit(main("accuracy", AccuracyOptions(), __doc__, measure))
