"""Which of several ways of doing the same thing is fastest on this machine: a short measured trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Trial:
    """What a trial found.

    Attributes:
        choice: name of the candidate to use.
        seconds: median seconds of one call, by name; a candidate that raised is missing.
        failures: by name, the first line of what a candidate raised.
    """

    choice: str
    seconds: dict[str, float]
    failures: dict[str, str]


def run_trial(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 3,
    margin: float = 1.1,
    device: torch.device | str = "cpu",
) -> Trial:
    """Time the candidates, interleaved so that a busy moment of the machine hits all alike.

    Args:
        candidates: calls that each do the same work once. The first is the plain way: another is chosen only if it
            is `margin` times as fast, so that noise does not decide.
        repeats: timed calls of each, after one to warm up.
        margin: how many times as fast as the first another must be.
        device: where the work is done; an accelerator is waited for.

    Raises:
        Exception: whatever the first candidate raises; of the others a failure is noted and they are out.
    """
    first = next(iter(candidates))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    failures: dict[str, str] = {}
    for turn in range(repeats + 1):
        for name, call in candidates.items():
            if name in failures:
                continue
            try:
                seconds = _timed(call, torch.device(device))
            except Exception as error:  # a backend may lack an operation, a compiler may be missing
                if name == first:
                    raise
                failures[name] = (str(error).splitlines() or [type(error).__name__])[0]
                continue
            if turn:
                times[name].append(seconds)
    seconds = {name: median(t) for name, t in times.items() if name not in failures}
    fastest = min(seconds, key=seconds.__getitem__)
    choice = fastest if seconds[first] >= margin * seconds[fastest] else first
    return Trial(choice, seconds, failures)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done all it was told; of a CPU nothing is ever pending."""
    if device.type in ("cuda", "xpu", "mps"):
        torch.accelerator.synchronize(device)
