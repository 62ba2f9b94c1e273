"""Contestants run only when it is their turn, with all their workers, and say why they cannot take part."""

import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops processes and reads /proc")


def test_a_contestant_works_in_its_turns_alone_and_its_workers_too(load, tmp_path):
    contestants, made_up = load("contestants"), load("made_up_contestants")
    trace = tmp_path / "trace"
    with contestants.Contestant("counting", made_up.counting, str(trace)) as contestant:
        assert contestant.info == {"greeting": "hello"}
        turn = contestant.turn(0.1)
        assert turn.images % 3 == 0
        assert turn.seconds >= 0.1
        assert turn.rate == turn.images / turn.seconds
        assert 0 <= turn.processor_seconds < 1
        for _ in range(50):  # on a busy machine its worker may not have come to write yet
            if trace.exists():
                break
            contestant.turn(0.1)
        time.sleep(0.1)  # a stopped process ends the write it is at
        before = trace.stat().st_size
        time.sleep(0.2)
        assert trace.stat().st_size == before
        for _ in range(50):
            contestant.turn(0.1)
            if trace.stat().st_size > before:
                break
        assert trace.stat().st_size > before


@pytest.mark.parametrize(
    "target, error, said",
    [
        ("without_its_package", "Missing", "a_package_that_nobody_has is not installed"),
        ("refusing", "UserError", "^no such photos$"),
        ("failing", "RuntimeError", "the sky has fallen"),
    ],
)
def test_a_contestant_that_cannot_start_says_why(load, target, error, said):
    contestants = load("contestants")
    expected = getattr(contestants, error, RuntimeError)
    with pytest.raises(expected, match=said):
        contestants.Contestant(target, getattr(load("made_up_contestants"), target))
