"""The clock adds up parts, does not count an inner one twice, and leaves batches alone."""

import contextlib
import time

import pytest
import torch

from vissl_zoo.speed import StepClock
from vissl_zoo.speed.clock import VIEWS, WAITING


@pytest.fixture
def ticking(monkeypatch):
    """A clock by which time passes only when told: (clock, pass_time)."""
    now = [0.0]

    def pass_time(seconds):
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return StepClock(), pass_time


def test_parts_add_up_and_nest(ticking):
    clock, pass_time = ticking
    for _ in range(2):
        with clock.part("outer"):
            pass_time(1)
            with clock.part("inner"):
                pass_time(10)
                with clock.part("innermost"):
                    pass_time(100)
            with clock.part("inner"):
                pass_time(1000)
        pass_time(1e6)
    assert dict(clock.seconds) == {"outer": 2, "inner": 2020, "innermost": 200}


def test_a_part_that_raises_is_counted(ticking):
    clock, pass_time = ticking
    with contextlib.suppress(ValueError), clock.part("part"):
        pass_time(3)
        raise ValueError
    with clock.part("after"):
        pass_time(1)
    assert dict(clock.seconds) == {"part": 3, "after": 1}


def test_waiting_is_for_the_loader_alone(ticking):
    clock, pass_time = ticking

    def loader():
        for number in range(3):
            pass_time(5)
            yield number

    seen = []
    for number in clock.waits(loader()):
        seen.append(number)
        with clock.part(VIEWS):
            pass_time(2)
        pass_time(100)
    assert seen == [0, 1, 2]
    assert (clock.seconds[WAITING], clock.loading) == (15, 21)


@pytest.mark.parametrize("exact, waits", [(False, 0), (True, 2)])
def test_an_accelerator_is_waited_for_only_when_asked(monkeypatch, exact, waits):
    calls = []
    monkeypatch.setattr(torch.accelerator, "synchronize", calls.append)
    clock = StepClock("cuda:0")
    clock.exact = exact
    with clock.part("part"):
        pass
    assert calls == [torch.device("cuda:0")] * waits
