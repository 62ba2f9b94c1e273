"""RESULTS.md from made-up lines, and run_all, which no benchmark's failure stops."""

import json
import subprocess

import pytest


@pytest.fixture
def described(load):
    """described(name, …) -> a line as it is read back from a file."""
    measure = load("measure")

    def described(name, unit="images/s", **fields):
        return json.loads(json.dumps(measure.Line(name, unit, **fields).described()))

    return described


@pytest.fixture
def lines(load, described):
    target = load("measure").Target
    compared = {"ours": 1234.4, "peer": 56.7, "against": "lightly 1.6.0"}
    good = {**compared, "ratio": 21.77, "spread": (20.1, 23.0), "target": target("≥", 20)}
    return [
        described("training: a", **good),
        described("training: b", **{**good, "ratio": 19.99}),
        described("training: c", reason="lightly is not installed", target=target("≥", 5)),
        described("scoring: d", ours=0.0005, peer=3.6, ratio=0.00014, target=target("≤", 0.01)),
        described("linear: e", "s", ours=1.0, peer=2.0, ratio=0.5),
    ]


def test_the_page_says_what_was_reached_and_what_was_not(load, lines):
    page = load("results").render(lines)
    rows = {row.split(" | ")[0][2:]: row for row in page.splitlines() if row.startswith("| ")}
    expected = "| 1,234 | 56.7 (lightly 1.6.0) | images/s | 21.8 (20.1–23.0) | ≥ 20 | yes |"
    assert expected in rows["training: a"]
    assert rows["training: b"].endswith("| **no** |")
    assert "| 5.0e-04 | 3.60 () | images/s | 1.4e-04 | ≤ 0.01 | yes |" in rows["scoring: d"]
    assert rows["linear: e"].endswith("| 0.500 | – | – |")
    assert "training: c" not in rows
    assert "- training: c: lightly is not installed" in page
    assert "2 of 3 targets measured here are reached." in page
    assert page.count("Machine: ") == 1
    assert "quick run" not in page
    assert "quick run" in load("results").render([{**lines[0], "quick": True}])


@pytest.fixture
def run_all(load, monkeypatch, described):
    """run_all.main with scripts that are not run: scoring writes a line and fails, the others write one."""
    module, commands = load("run_all"), []

    def run(command, **_):
        commands.append(command)
        script = command[1].rsplit("/", 1)[1].removesuffix(".py")
        with open(command[command.index("--output") + 1], "w") as file:
            file.write(json.dumps(described(f"{script}: a", ours=1.0, peer=1.0, ratio=1.0)) + "\n")
        broken = script == "scoring"
        said = "Traceback …\nOSError: no room\n" if broken else ""
        return subprocess.CompletedProcess(command, int(broken), stderr=said)

    monkeypatch.setattr(module.subprocess, "run", run)
    return module.main, commands


def test_one_failure_does_not_lose_the_rest(run_all, tmp_path):
    main, commands = run_all
    assert main(["--quick", "--output-dir", str(tmp_path), "--data.path", "cifar10"]) == 1
    kept = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    names = [line["name"] for line in kept]
    assert names == ["training: a", "scoring: a", "scoring: the rest", "runtime: a", "knn: a", "linear: a"]
    assert kept[2]["reason"] == "the benchmark failed: OSError: no room"
    assert "OSError: no room" in (tmp_path / "RESULTS.md").read_text()
    assert all("--quick" in command for command in commands)
    assert ["--data.path" in command for command in commands] == [True, *[False] * 4]


def test_only_some_keeps_the_lines_of_the_others(run_all, tmp_path):
    main, commands = run_all
    assert main(["--only", "knn", "--output-dir", str(tmp_path)]) == 0
    assert main(["--only", "training", "linear", "--threads", "1", "--output-dir", str(tmp_path)]) == 0
    names = [json.loads(line)["name"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert names == ["training: a", "knn: a", "linear: a"]
    assert len(commands) == 3
    assert commands[-1][commands[-1].index("--threads") + 1] == "1"


def test_an_unknown_benchmark_is_refused(run_all, capsys):
    assert run_all[0](["--only", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
