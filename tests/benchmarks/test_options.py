"""What no benchmark can work with is refused in a line that names the flag."""

import sys

import pytest


@pytest.mark.parametrize(
    ("script", "options", "typed", "said"),
    [
        ("knn", "KnnOptions", "--bank 199", "--bank must be at least 200, not 199"),
        ("knn", "KnnOptions", "--queries 0", "--queries must be at least 1, not 0"),
        ("linear", "LinearBenchmarkOptions", "--repeats 0", "--repeats must be at least 1, not 0"),
        ("training", "TrainingOptions", "--seconds 0", "--seconds must be a positive number, not 0.0"),
        ("scoring", "ScoringOptions", "--workers -1", "--workers must be at least 0, not -1"),
        ("training", "TrainingOptions", "--threads 0", "--threads must be at least 1, not 0"),
    ],
)
def test_bad_numbers(load, monkeypatch, capsys, script, options, typed, said):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *typed.split()])
    default = getattr(load(script), options)()

    def measure(*_):
        raise AssertionError("begun all the same")

    assert load("options").main(script, default, "", measure) == 2
    assert capsys.readouterr().err == f"benchmarks/{script}.py: {said}\n"


def test_good_numbers(load):
    assert load("scoring").ScoringOptions(workers=0).validate() is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--threads 0", "--threads must be at least 1, not 0"),
        ("--output-dir {file}/x", "--output-dir {file}/x: "),
    ],
)
def test_run_all(load, tmp_path, capsys, typed, said):
    file = tmp_path / "file"
    file.touch()
    assert load("run_all").main(typed.format(file=file).split()) == 2
    assert said.format(file=file) in capsys.readouterr().err
