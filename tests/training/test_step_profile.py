"""--profile: what it writes, which steps it watches, and that the run is the same with it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vissl_zoo.training.step_profile import watched_steps

DROPOUT = ("--backbone", "test_vit", "--clip-gradient", "1")


def weights(run):
    checkpoint = max((run / "checkpoints").iterdir())
    return load_file(checkpoint / "method.safetensors")


def watched(run):
    """Numbers of the steps in the trace."""
    events = json.loads((run / "profile.json").read_text())["traceEvents"]
    names = {event.get("name", "") for event in events}
    return {int(name.partition("#")[2]) for name in names if name.startswith("ProfilerStep#")}


def test_a_profiled_run_is_the_same_run(train_main, small, tmp_path):
    flags = (*DROPOUT, "--batch-size", "8", "--gradient-accumulation", "2")
    arguments = (*small, *flags, "--max-steps", "3", "--no-report", "--output-dir")
    profiled = train_main(*arguments, tmp_path / "profiled", "--profile")
    assert profiled.code == 0, profiled.err
    assert train_main(*arguments, tmp_path / "plain").code == 0
    plain = weights(tmp_path / "plain")
    assert all(torch.equal(v, plain[k]) for k, v in weights(tmp_path / "profiled").items())
    assert watched(tmp_path / "profiled") == {1, 2}  # the first is to warm up
    assert "Self CPU" in (tmp_path / "profiled" / "profile.txt").read_text()
    assert "profile: " in profiled.err
    assert "ms a step in operations (aten::" in profiled.err
    assert not (tmp_path / "plain" / "profile.json").exists()


@pytest.mark.parametrize(
    "steps, expected",
    [(1000, (8, 2, 5)), (30, (8, 2, 5)), (14, (2, 2, 5)), (4, (0, 1, 3)), (3, (0, 1, 2)), (2, (0, 1, 1))],
)
def test_the_steps_that_are_watched(steps, expected):
    """11 to 15, or what follows the first third of a shorter run."""
    assert watched_steps(steps) == expected


@pytest.mark.parametrize("steps, left", [(1, "is 1"), (2, "is none left")])
def test_too_few_steps_are_refused_and_leave_the_earlier_run(train_main, small, tmp_path, steps, left):
    """A single step would be all warm-up, and a finished run has none to watch."""
    flags = (*small, "--max-steps", steps, "--no-report", "--output-dir", tmp_path)
    assert train_main(*flags).code == 0
    resumed = ("--resume",) if steps == 2 else ()
    outcome = train_main(*flags, *resumed, "--profile")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == f"train.py: --profile needs at least 2 steps, and there {left}"
    assert list((tmp_path / "checkpoints").iterdir())
