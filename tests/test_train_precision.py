"""The precision of a run: told, stored, and gone on with."""

import json

import pytest

from vissl_zoo.training import precision


@pytest.fixture
def trial_says(monkeypatch):
    """trial_says(name) -> the trials that were made from then on."""

    def trial_says(name):
        trials = []

        def tried(recipe, *_):
            trials.append(recipe.batch_size)
            return precision.Precision(name, "as the test says")

        monkeypatch.setattr(precision, "_try", tried)
        return trials

    return trial_says


def recipe_of(run):
    return json.loads((run / "recipe.json").read_text())


def test_auto_is_stored_and_resumed_without_another_trial(train_main, small, tmp_path, trial_says):
    arguments = (
        *small,
        "--mixed-precision",
        "auto",
        "--max-steps",
        "2",
        "--no-report",
        "--output-dir",
        tmp_path,
    )
    trials = trial_says("bf16")
    outcome = train_main(*arguments)
    assert outcome.code == 0, outcome.err
    assert "precision: bf16 (as the test says)\n" in outcome.out
    assert recipe_of(tmp_path)["mixed_precision"] == "bf16"
    assert trials == [16]
    assert trial_says("no") == []
    outcome = train_main(*arguments, "--resume")
    assert outcome.code == 0, outcome.err
    assert "precision: bf16 (as the run began)\n" in outcome.out
    assert recipe_of(tmp_path)["mixed_precision"] == "bf16"


def test_another_precision_is_refused_when_it_is_asked_for(train_main, small, tmp_path):
    arguments = (*small, "--max-steps", "2", "--no-report", "--output-dir", tmp_path)
    assert train_main(*arguments).code == 0
    outcome = train_main(*arguments, "--resume", "--mixed-precision", "bf16")
    assert outcome.code == 2
    assert "other values of --mixed-precision\n" in outcome.err


def test_what_accelerate_was_told(train_main, small, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    arguments = (*small, "--max-steps", "1", "--no-report", "--output-dir", tmp_path)
    outcome = train_main(*arguments, "--mixed-precision", "auto")
    assert "precision: bf16 (as accelerate was told)" in outcome.out
    assert recipe_of(tmp_path)["mixed_precision"] == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    train_main(*arguments, "--mixed-precision", "auto")
    assert "in a trial)" in train_main(*arguments, "--mixed-precision", "auto").out


def test_the_loaders_share_is_logged(demo_run):
    run, outcome = demo_run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["data_share"] < 1 for line in lines)
    assert ", data " in outcome.err
