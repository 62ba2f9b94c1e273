"""Scaling: images/s, seconds to open and peak memory against images, batch, views and processes; fits and pictures.

    python benchmarks/scaling.py --output scaling.jsonl --pictures benchmarks

train.py trains the demo's small network on generated pictures of 32 px; one thing is varied at a time. A curve is
fitted by a straight line in the logarithms, y ~ x^slope, and by y = a + b·x; both with R². Several processes are
started as CONTRIBUTING.md says, with one thread each, and their number is read back from the run's log.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from contestants import Contestant, tree_memory
from loops import TRAIN, last_lines, ours
from measure import Line, Report, say
from options import Options, main
from pictures import write_parquet
from results import figure_of

BASE = ("demo", "--data.workers", "2")
GIB = 2.0**30
AFFINE = "a constant and a linear part"
COLOURS = {"images/s": "#1b6ca8", "GiB": "#c8553d", "s to open": "#588157", "ms a step": "#588157"}


@dataclass(frozen=True)
class ScalingOptions(Options):
    """What to vary, and how far."""

    LEAST = {"low": 0}

    images: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Numbers of training images."""
    batches: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Batch sizes."""
    low: tuple[int, ...] = (0, 2, 4, 6)
    """Numbers of small crops beside two standard views."""
    processes: tuple[int, ...] = (1, 2)
    """Numbers of processes."""
    seconds: float = 2.0
    """Length of a turn."""
    repeats: int = 3
    """Turns that count."""
    pictures: str | None = None
    """Draw the curves into this folder."""


class Point(NamedTuple):
    """What was measured at one value of x."""

    x: int
    rate: float  # images/s
    memory: float | None  # GiB at the peak
    opening: float | None  # seconds from the start of the process to the first step


class Fit(NamedTuple):
    """y ~ x^slope with R² in the logarithms, y = a + b·x with its own R², and both in words."""

    slope: float
    r2: float
    a: float
    b: float
    linear_r2: float
    statement: str


def measure(options: ScalingOptions, report: Report) -> None:
    """Measure, fit, report and draw the four curves."""
    images, batches, low = options.images, options.batches, options.low
    seconds, repeats = options.seconds, options.repeats
    if options.quick:
        images, batches, low = images[:2], (32, 128), (0, 6)
        seconds, repeats = 0.3, 1
    with tempfile.TemporaryDirectory() as scratch:
        data = {
            n: str(write_parquet(Path(scratch) / f"images{n}", n, 32)) for n in {*images, max(batches) * 2}
        }
        small = data[max(batches) * 2]

        def point(x: int, path: str, *flags: str) -> Point:
            return _point(x, (*BASE, "--data.path", path, *flags), Path(scratch), seconds, repeats)

        curves = {
            "images": [point(n, data[n]) for n in images],
            "batch": [point(n, small, "--batch-size", str(n)) for n in batches],
            "views": [point(2 + n, small, *(low_views(n) if n else ())) for n in low],
            "processes": [_processes(n, small, Path(scratch), options.quick) for n in options.processes],
        }
    for name, points in curves.items():
        for line in lines(name, points, repeats):
            report.add(line)
    if options.pictures:
        for path in draw(curves, Path(options.pictures)):
            say(f"scaling: {path}")


def low_views(count: int) -> tuple[str, ...]:
    """Flags for so many views of half the size."""
    return ("--views.low", str(count), "--views.low-size", "16", "--views.low-scale", "0.05", "0.4")


def _point(x: int, flags: tuple[str, ...], scratch: Path, seconds: float, repeats: int) -> Point:
    """train.py in this process's group, timed in turns after one that warms up, then watched."""
    with Contestant("ours", ours, (*flags, "--output-dir", str(scratch / "run"))) as contestant:
        contestant.turn(seconds)
        rate = median(contestant.turn(seconds).rate for _ in range(repeats))
        memory = contestant.memory(seconds)
        opening = contestant.start_seconds
    say(f"scaling: {' '.join(flags[4:])}: {rate:.4g} images/s")
    return Point(x, rate, None if memory is None else memory / GIB, opening)


def _processes(count: int, path: str, scratch: Path, quick: bool) -> Point:
    """torchrun with `count` processes of one thread on the CPU; images/s from the last lines of its log."""
    steps, every = (12, 4) if quick else (120, 20)
    run = scratch / f"processes{count}"
    flags = [*BASE, "--data.path", path, "--output-dir", str(run), "--no-report", "--mixed-precision", "no"]
    flags += ["--max-steps", str(steps), "--log-every", str(every), "--threads", "1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*launch, str(TRAIN), *flags],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
        reader.start()
        peak = None
        while process.poll() is None:
            now = tree_memory(process.pid)
            peak = peak if now is None else max(peak or 0, now)
            time.sleep(0.1)
        reader.join()
    if process.returncode:
        raise RuntimeError(f"torchrun ended with code {process.returncode}: {''.join(said)[-2000:]}")
    rate = rate_of(last_lines(run, 3), count)
    say(f"scaling: {count} processes: {rate:.4g} images/s")
    return Point(count, rate, None if peak is None else peak / GIB, None)


def rate_of(lines: list[dict], processes: int) -> float:
    """The median images/s of a log's lines, which must say that so many processes were there."""
    found = {line["processes"] for line in lines}
    if found != {processes}:  # a launcher that starts one process and says nothing has been seen
        raise RuntimeError(f"{processes} processes were asked for and the log says {found}")
    return median(line["images_per_second"] for line in lines)


def fit(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Both fits of a curve; R² of a constant curve is taken as 1."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    slope, r2 = _line(np.log(x), np.log(y))[1:]
    a, b, linear_r2 = _line(x, y)
    varies = y.max() / y.min() - 1
    if abs(slope) < 0.1:
        statement = f"hardly depends on it (slope {slope:+.2f}, all within {varies:.0%})"
    elif 0.9 <= slope <= 1.1 and r2 > 0.98:
        statement = f"linear (slope {slope:+.2f}, R² {r2:.3f})"
    elif len(x) > 2 and a > 0 and b > 0 and np.allclose(a + b * x, y, rtol=0.2):  # R² sees the largest alone
        statement = f"{AFFINE} (slope {slope:+.2f}, R² {r2:.3f}; a + b·x: R² {linear_r2:.3f})"
    else:
        statement = f"not linear (slope {slope:+.2f}, R² {r2:.3f}; a + b·x: R² {linear_r2:.3f})"
    if len(x) < 3:
        statement = f"{y[-1] / y[0]:.2f} times from {x[0]:,g} to {x[-1]:,g} (two points fit any line)"
    return Fit(slope, r2, a, b, linear_r2, statement)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Intercept, slope and R² of the least-squares line."""
    slope, intercept = np.polyfit(x, y, 1)
    total = ((y - y.mean()) ** 2).sum()
    rest = ((y - intercept - slope * x) ** 2).sum()
    return float(intercept), float(slope), float(1 - rest / total) if total > 0 else 1.0


def series(name: str, points: list[Point]) -> dict[str, list[float]]:
    """The curves of a list of points by unit, without those that could not be measured."""
    columns = {"images/s": [p.rate for p in points], "GiB": [p.memory for p in points]}
    if name == "images":  # depends on nothing else
        columns["s to open"] = [p.opening for p in points]
    if name == "batch":
        columns["ms a step"] = [1000 * p.x / p.rate for p in points]
    return {unit: column for unit, column in columns.items() if None not in column}


def lines(name: str, points: list[Point], repeats: int) -> list[Line]:
    """A line for each curve: its points in `details`, with the fit."""
    x = [p.x for p in points]
    found = []
    for unit, y in series(name, points).items():
        fitted = fit(x, y)._asdict() if len(x) > 1 else {}
        details = {"x": x, "y": y, **fitted}
        found.append(Line(f"scaling: {unit} against {name}", unit, repeats=repeats, details=details))
    return found


def draw(curves: dict[str, list[Point]], folder: Path) -> list[Path]:
    """scaling_NAME.png for each curve, logarithmic both ways, with the fit above each panel; returns the files."""
    from matplotlib.figure import Figure  # not pyplot, which would choose a screen

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, points in curves.items():
        shown = series(name, points)
        figure = Figure(figsize=(4.6 * len(shown), 3.9), dpi=110, layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(shown)))
        x = np.array([p.x for p in points], dtype=float)
        for panel, (unit, y) in zip(panels, shown.items(), strict=True):
            panel.plot(x, y, "o", color=COLOURS[unit], markersize=7)
            if len(x) > 1:
                fitted = fit(x, y)
                smooth = np.geomspace(x.min(), x.max(), 50)
                level = np.exp(np.mean(np.log(y)) - fitted.slope * np.mean(np.log(x)))
                power, affine = level * smooth**fitted.slope, fitted.a + fitted.b * smooth
                stated = affine if fitted.statement.startswith(AFFINE) else power
                panel.plot(smooth, stated, color=COLOURS[unit], alpha=0.6)
                panel.set_title(_wrapped(fitted.statement), fontsize=9)
            panel.set(xscale="log", yscale="log", xlabel=name, ylabel=unit)
            panel.set_xticks(x, [f"{int(v):,}" for v in x], minor=False)
            panel.set_xticks([], minor=True)
            low, high = min(y), max(y)
            panel.set_ylim(
                min(low / 1.3, high / 4), max(high * 1.3, low * 4)
            )  # noise is not to fill the panel
            panel.margins(x=0.15)
            for axis_ticks in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
                axis_ticks(lambda value, _: f"{value:,.12g}")
            panel.grid(alpha=0.25, which="both")
            for place, value in zip(x, y, strict=True):
                panel.annotate(
                    figure_of(value), (place, value), (0, 8), textcoords="offset points", ha="center"
                )
        paths.append(folder / f"scaling_{name}.png")
        figure.savefig(paths[-1])
    return paths


def _wrapped(text: str) -> str:
    return text.replace(" (", "\n(", 1).replace("; ", "\n")


if __name__ == "__main__":
    sys.exit(main("scaling", ScalingOptions(), __doc__, measure))
