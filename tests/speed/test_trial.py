"""The trial picks what is fastest, and the plain way when nothing is clearly faster."""

import time

import pytest

from vissl_zoo.speed import run_trial


def sleeper(seconds: float):
    return lambda: time.sleep(seconds)


def test_the_clearly_faster_one_is_chosen():
    trial = run_trial({"plain": sleeper(0.02), "fast": sleeper(0.002), "slow": sleeper(0.03)})
    assert trial.choice == "fast"
    assert trial.seconds["plain"] == pytest.approx(0.02, rel=0.8)
    assert set(trial.seconds) == {"plain", "fast", "slow"}


def test_a_little_faster_is_not_enough():
    assert run_trial({"plain": sleeper(0.02), "other": sleeper(0.018)}, margin=2).choice == "plain"


def test_a_failure_is_out_and_told():
    def broken():
        raise RuntimeError("no kernel\nat all")

    trial = run_trial({"plain": sleeper(0.001), "broken": broken})
    assert trial.choice == "plain"
    assert trial.failures == {"broken": "no kernel"}
    assert "broken" not in trial.seconds


def test_the_plain_way_may_not_fail():
    with pytest.raises(ZeroDivisionError):
        run_trial({"plain": lambda: 1 / 0, "other": sleeper(0.001)})


def test_all_are_called_equally_often():
    calls = []
    run_trial({name: (lambda n=name: calls.append(n)) for name in "ab"}, repeats=2)
    assert calls == ["a", "b"] * 3
