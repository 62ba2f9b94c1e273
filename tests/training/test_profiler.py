"""--profile: what it writes, which steps it measures, and that the run is the same with it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vissl_zoo.speed.profile import PARTS

DROPOUT = ("--backbone", "test_vit", "--image-size", "32", "--clip-gradient", "1")


def weights(run):
    [checkpoint] = (run / "checkpoints").iterdir()
    return load_file(checkpoint / "method.safetensors")


@pytest.mark.parametrize("flags", [("--mixed-precision", "bf16"), (*DROPOUT, "--gradient-accumulation", "2")])
def test_a_profiled_run_is_the_same_run(train_main, small, tmp_path, flags):
    arguments = (*small, *flags, "--max-steps", "5", "--no-report", "--output-dir")
    profiled = train_main(*arguments, tmp_path / "profiled", "--profile")
    assert profiled.code == 0, profiled.err
    assert train_main(*arguments, tmp_path / "plain").code == 0
    plain = weights(tmp_path / "plain")
    assert all(torch.equal(v, plain[k]) for k, v in weights(tmp_path / "profiled").items())
    assert (tmp_path / "profiled" / "profile.png").stat().st_size > 5000
    found = json.loads((tmp_path / "profiled" / "profile.json").read_text())
    assert tuple(found["parts"]) == PARTS
    assert all(seconds > 0 for name, seconds in found["parts"].items() if name != "the rest")
    assert found["steps"] == 4  # the first is to warm up
    assert found["images"] == (32 if "2" in flags else 16)
    assert 0 < found["ratio"] < 2
    assert "profile: " in profiled.err
    assert "profile.png" in profiled.err
    assert not (tmp_path / "plain" / "profile.json").exists()


def test_steps_11_to_30(train_main, small, tmp_path):
    flags = ("--image-size", "16", "--batch-size", "8", "--max-steps", "32", "--no-report", "--profile")
    assert train_main(*small, *flags, "--output-dir", tmp_path).code == 0
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["steps"] == 20
    mean = sum(found["parts"].values())
    assert found["parts"]["backward"] > 0.1 * mean
    assert found["step_seconds"] < 3 * mean


def test_a_single_step_is_refused(train_main, small, tmp_path):
    outcome = train_main(*small, "--max-steps", "1", "--profile", "--no-report", "--output-dir", tmp_path)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == "train.py: --profile needs at least 2 steps, and there is 1"


def test_a_finished_run_has_no_step_to_profile(train_main, small, tmp_path):
    flags = (*small, "--max-steps", "2", "--no-report", "--output-dir", tmp_path)
    assert train_main(*flags).code == 0
    outcome = train_main(*flags, "--resume", "--profile")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].endswith("--profile needs at least 2 steps, and there is none left")


def test_a_profile_that_is_refused_leaves_the_earlier_run(train_main, small, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    outcome = train_main(*small, "--max-steps", 1, "--profile", "--no-report", "--output-dir", tmp_path)
    assert (outcome.code, (tmp_path / "checkpoints").exists()) == (2, True)
    assert "--profile needs at least 2 steps" in outcome.err
