"""Where the time of a training step goes, part by part."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
WAITING, VIEWS = "waiting for data", "views"  # the loader's share of a step


class StepClock:
    """Seconds spent in each named part, summed over the steps. Reading it costs a few microseconds a step.

    Parts may nest: the time of an inner one is not counted for the outer. On an accelerator the seconds are the
    host's, which runs ahead of the device, unless `exact` is set; then the device is waited for at both ends of
    every part, which is right for a profile and too slow for a training.

    Attributes:
        seconds: by part, since the clock was made.
        exact: wait for the device at both ends of a part.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)
        self.exact = False
        self._inner = [0.0]  # seconds spent in the parts inside each open part

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for `name`."""
        start = self._now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            whole = self._now() - start
            self.seconds[name] += whole - self._inner.pop()
            self._inner[-1] += whole

    def waits(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, with the time that the loop waits for each counted."""
        batches = iter(batches)
        while True:
            with self.part(WAITING):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

    @property
    def loading(self) -> float:
        """Seconds spent waiting for batches and making views."""
        return self.seconds[WAITING] + self.seconds[VIEWS]

    def _now(self) -> float:
        if self.exact:
            synchronize(self.device)
        return time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done all it was told; of a CPU nothing is ever pending."""
    if device.type in ("cuda", "xpu", "mps"):
        torch.accelerator.synchronize(device)
