"""Lines, targets, ratios of pairs, and calls in turns."""

import json

import pytest
import torch

KEYS = {
    "name",
    "unit",
    "ours",
    "peer",
    "against",
    "ratio",
    "spread",
    "target",
    "reached",
    "repeats",
    "quick",
    "reason",
    "details",
    "threads",
    "machine",
}


@pytest.fixture
def measure(load):
    return load("measure")


def test_a_line_is_one_json_object_with_the_machine(measure, tmp_path, capsys):
    report = measure.Report(str(tmp_path / "deep" / "lines.jsonl"), quick=True)
    report.add(measure.Line("knn: x", "s", 1.0, 2.0, ratio=0.5, target=measure.Target("≤", 1.1)))
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "deep" / "lines.jsonl").read_text()
    found = json.loads(printed)
    assert found.keys() == KEYS
    assert found["machine"].keys() == {"cpu", "cores", "flags", "gpu", "python", "torch", "system"}
    assert (found["target"], found["reached"], found["quick"]) == ("≤ 1.1", True, True)
    assert found["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    "sense, value, ratio, reached",
    [
        ("≥", 2.2, 2.2, True),
        ("≥", 2.2, 2.1999, False),  # which a table would round
        ("≤", 1.0, 1.0, True),
        ("≤", 1.0, 1.01, False),
        ("≥", 2.2, None, None),
    ],
)
def test_a_target_is_held_against_what_was_measured(measure, sense, value, ratio, reached):
    assert measure.Line("a", "s", ratio=ratio, target=measure.Target(sense, value)).reached is reached


def test_the_ratio_is_the_median_of_pairs_and_not_of_all(measure):
    line = measure.compare("a", "images/s", [10, 40, 90], [10, 20, 30])
    assert (line.ours, line.peer, line.repeats) == (40, 20, 3)
    assert (line.ratio, line.spread) == (2, (1, 3))


def test_calls_are_made_in_turns(measure):
    made = []
    seconds = measure.in_turns({"a": lambda: made.append("a"), "b": lambda: made.append("b")}, 2, warm_up=1)
    assert made == ["a", "b"] * 3
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_a_command_line_that_cannot_be_read_is_one_line(load, monkeypatch, capsys):
    options = load("options")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for flags, said in ((["--threads", "0"], "--threads must be at least 1"), (["--fast"], "--fast")):
        monkeypatch.setattr("sys.argv", ["knn.py", *flags])
        assert options.main("knn", options.Options(), "About.", lambda *_: pytest.fail("measured")) == 2
        said_now = capsys.readouterr().err
        assert said in said_now
        assert said_now.count("\n") == 1
