"""What every benchmark shares: calls timed in turns, one JSON line a figure, and the machine it was measured on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vissl_zoo.cpu.cores import usable_cores

NO_BFLOAT16 = "this machine does not compute in bfloat16"
FLAGS_OF_INTEREST = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")


@dataclass(frozen=True)
class Target:
    """What a figure has to reach: `sense` is "≥" or "≤"."""

    sense: str
    value: float

    def __str__(self) -> str:
        return f"{self.sense} {self.value:g}"

    def reached_by(self, figure: float) -> bool:
        """Whether the figure, as it was measured and not as it is rounded, reaches it."""
        return figure >= self.value if self.sense == "≥" else figure <= self.value


@dataclass(frozen=True)
class Line:
    """One figure: ours beside the peer's, both medians, and what is asked of them.

    Attributes:
        name: what was done, "training: …".
        unit: of `ours` and `peer`.
        ours, peer: medians over the repeats; None where there is none.
        against: who the peer is, with its version.
        ratio: ours / peer, the median over pairs measured one after the other.
        spread: the smallest and the largest ratio of a pair.
        target: what the ratio has to reach.
        repeats: timed turns of each.
        quick: from a --quick run, which shows that the script works and not how fast anything is.
        reason: why a figure is missing.
        details: whatever else belongs to it.
    """

    name: str
    unit: str
    ours: float | None = None
    peer: float | None = None
    against: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    target: Target | None = None
    repeats: int = 0
    quick: bool = False
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without a target or without a figure."""
        return None if self.target is None or self.ratio is None else self.target.reached_by(self.ratio)

    def described(self) -> dict[str, Any]:
        """The JSON object: the fields, `reached`, the threads and the machine."""
        values = dataclasses.asdict(self)
        values["target"] = None if self.target is None else str(self.target)
        return {**values, "reached": self.reached, "threads": torch.get_num_threads(), "machine": machine()}


class Report:
    """Prints lines as they come and, with a path, appends them to it."""

    def __init__(self, output: str | None, quick: bool):
        self._path, self._quick = Path(output) if output else None, quick
        self.lines: list[Line] = []
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("")

    def add(self, line: Line) -> None:
        """Print and keep one line."""
        line = dataclasses.replace(line, quick=self._quick)
        self.lines.append(line)
        text = json.dumps(line.described(), ensure_ascii=False)
        print(text, flush=True)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")


def compare(name: str, unit: str, ours: Sequence[float], peer: Sequence[float], **fields: Any) -> Line:
    """A line from measurements taken in turns: `ours[i]` and `peer[i]` are neighbours in time."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    measured = {"ratio": median(ratios), "spread": (min(ratios), max(ratios)), "repeats": len(ratios)}
    return Line(name, unit, median(ours), median(peer), **measured, **fields)


def in_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, by name, each called `repeats` times in turns after `warm_up` untimed turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm_up + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def machine() -> dict[str, Any]:
    """The processor, its cores and instruction sets, torch, and the GPU if there is one."""
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "flags": [flag for flag in FLAGS_OF_INTEREST if flag in _cpu_flags()],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }


def set_threads(threads: int | None) -> None:
    """Let torch and the libraries of this process and of those that it starts use so many threads."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done all it was told; of a CPU nothing is ever pending."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def with_version(package: str) -> str:
    """A package's name and version: "lightly 1.6.0"."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package


def say(text: str) -> None:
    """Tell whoever waits what is being done, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _cpu_flags() -> set[str]:
    for line in _cpuinfo():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def _cpu_name() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
