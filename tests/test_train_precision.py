"""The precision of a run: asked of the hardware, stored, and gone on with."""

import json

import pytest
import torch
from safetensors.torch import load_file

from vissl_zoo.training import launch


@pytest.fixture
def native(monkeypatch):
    """native(yes) sets whether the hardware computes in bfloat16."""
    return lambda yes: monkeypatch.setattr(launch, "bfloat16_is_native", lambda device: yes)


def stored(run):
    return json.loads((run / "recipe.json").read_text())["mixed_precision"]


def test_auto_is_stored_and_gone_on_with(train_main, small, tmp_path, native):
    arguments = (*small, "--mixed-precision", "auto", "--max-steps", "2", "--no-report", "--output-dir")
    native(True)
    outcome = train_main(*arguments, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "precision: bf16 (the hardware computes in it)\n" in outcome.out
    assert stored(tmp_path / "run") == "bf16"
    assert train_main(*arguments, tmp_path / "again").code == 0
    one, two = (load_file(tmp_path / name / "export" / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())  # nothing was left to chance
    native(False)
    outcome = train_main(*arguments, tmp_path / "run", "--resume")
    assert outcome.code == 0, outcome.err
    assert "precision: bf16 (as the run began)\n" in outcome.out
    assert stored(tmp_path / "run") == "bf16"


def test_another_precision_is_refused_when_it_is_asked_for(train_main, small, tmp_path):
    arguments = (*small, "--max-steps", "2", "--no-report", "--output-dir", tmp_path)
    assert train_main(*arguments).code == 0
    outcome = train_main(*arguments, "--resume", "--mixed-precision", "bf16")
    assert outcome.code == 2
    assert "other values of --mixed-precision (no, now bf16)\n" in outcome.err


def test_what_accelerate_was_told(train_main, small, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    arguments = (*small, "--max-steps", "1", "--no-report", "--output-dir", tmp_path)
    outcome = train_main(*arguments, "--mixed-precision", "auto")
    assert "precision: bf16 (as accelerate was told)" in outcome.out
    assert stored(tmp_path) == "bf16"


def test_the_loaders_share_is_logged(demo_run):
    run, outcome = demo_run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["data_share"] < 1 for line in lines)
    assert ", data " in outcome.err
