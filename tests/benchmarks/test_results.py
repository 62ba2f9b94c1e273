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
    good = {
        **compared,
        "ratio": 21.77,
        "spread": (20.1, 23.0),
        "float32_ratio": 1.4,
        "target": target("≥", 20),
    }
    points = {"difference_unit": "points"}
    seeds = {**points, "standard_error": 0.4567}
    curve = {"x": [1000, 100000], "y": [1.5, 150.0], "statement": "linear (slope +1.00)"}
    return [
        described("views: a", **good),
        described("views: b", **{**good, "ratio": 19.99}),
        described("views: c", reason="kornia is not installed", target=target("≥", 5)),
        described(
            "accuracy: d", ours=0.66, peer=0.661, difference=-0.1, target=target("≥", -0.5), details=points
        ),
        described("accuracy: f", ours=0.6, difference=-0.7, repeats=5, details=seeds),
        described("linear: e", "s", ours=1.0, peer=2.0, ratio=0.5),
        described("scaling: GiB against images", "GiB", details=curve),
    ]


def test_the_page_says_what_was_reached_and_what_was_not(load, lines, tmp_path):
    page = load("results").render(lines, [tmp_path / "scaling_images.png"])
    rows = {row.split(" | ")[0][2:]: row for row in page.splitlines() if row.startswith("| ")}
    assert (
        "| 1,234 | 56.7 (lightly 1.6.0) | images/s | 21.8 (20.1–23.0) | 1.40 | ≥ 20 | yes |"
        in rows["views: a"]
    )
    assert rows["views: b"].endswith("| **no** |")
    assert "| -0.10 points | – | ≥ -0.5 | yes |" in rows["accuracy: d"]
    assert "| -0.70 ± 0.46 points, 5 seeds | – | – | – |" in rows["accuracy: f"]
    assert rows["linear: e"].endswith("| 0.500 | – | – | – |")
    assert "views: c" not in rows
    assert "- views: c: kornia is not installed" in page
    assert "2 of 3 targets measured here are reached." in page
    assert "GiB against images: linear (slope +1.00). 1,000: 1.50, 100,000: 150." in page
    assert "![scaling: images](scaling_images.png)" in page
    assert page.count("Machine: ") == 1
    assert "quick run" not in page
    assert "quick run" in load("results").render([{**lines[0], "quick": True}])


@pytest.fixture
def run_all(load, monkeypatch, described):
    """run_all.main with scripts that are not run: views writes a line and fails, the others write one."""
    module, commands = load("run_all"), []

    def run(command, **_):
        commands.append(command)
        script = command[1].rsplit("/", 1)[1].removesuffix(".py")
        with open(command[command.index("--output") + 1], "w") as file:
            file.write(json.dumps(described(f"{script}: a", ours=1.0, peer=1.0, ratio=1.0)) + "\n")
        broken = script == "views"
        said = "Traceback …\nOSError: no room\n" if broken else ""
        return subprocess.CompletedProcess(command, int(broken), stderr=said)

    monkeypatch.setattr(module.subprocess, "run", run)
    return module.main, commands


def test_one_failure_does_not_lose_the_rest(run_all, tmp_path):
    main, commands = run_all
    assert main(["--quick", "--output-dir", str(tmp_path), "--data.path", "cifar10"]) == 1
    kept = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    names = [line["name"] for line in kept]
    assert names[:3] == ["training: a", "views: a", "views: the rest"]
    assert names[3:] == [f"{script}: a" for script in ("scoring", "knn", "linear", "scaling")]
    assert kept[2]["reason"] == "the benchmark failed: OSError: no room"
    assert "OSError: no room" in (tmp_path / "RESULTS.md").read_text()
    assert all("--quick" in command for command in commands)
    assert ["--data.path" in command for command in commands] == [True, *[False] * 5]


def test_only_some_keeps_the_lines_of_the_others(run_all, tmp_path):
    main, commands = run_all
    assert main(["--only", "knn", "--output-dir", str(tmp_path)]) == 0
    assert main(["--only", "accuracy", "linear", "--threads", "1", "--output-dir", str(tmp_path)]) == 0
    names = [json.loads(line)["name"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert names == ["knn: a", "linear: a", "accuracy: a"]
    assert len(commands) == 3
    assert commands[-1][commands[-1].index("--threads") + 1] == "1"


def test_an_unknown_benchmark_is_refused(run_all, capsys):
    assert run_all[0](["--only", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
