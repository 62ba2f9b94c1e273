"""What holds for every command: a help, one line for what is mistyped, and no library that it does not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vissl_zoo.commands import COMMANDS, main

QUICK = ("select", "filter", "dedup", "report", "compare")  # they run no model
HEAVY = {"torch", "torchvision", "timm", "datasets"}
LOADED = """
import contextlib, io, json, sys
from vissl_zoo.commands import main
said = io.StringIO()
with contextlib.redirect_stdout(said):
    code = 0
    for words in json.loads(sys.argv[1]):
        try:
            code = code or main(words)
        except SystemExit as stop:
            code = code or stop.code
print(json.dumps({"code": code, "loaded": sorted(sys.modules)}))
"""


@pytest.fixture
def predictions(scored, tmp_path):
    """An evaluation's predictions.parquet, made of scores."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(scored / "scores.parquet")
    rows = pa.array(range(len(table)))
    pq.write_table(table.append_column("row", rows), tmp_path / "predictions.parquet")
    return tmp_path / "predictions.parquet"


def loaded_by(*command_lines) -> set[str]:
    """The modules that a process has loaded after it ran them all, without a mistake."""
    words = json.dumps([[str(word) for word in line] for line in command_lines])
    done = subprocess.run([sys.executable, "-c", LOADED, words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert not said["code"], done.stderr
    return set(said["loaded"])


def test_commands_that_run_no_model_load_no_library_for_one(scored, predictions, tmp_path):
    scores, embeddings = scored / "scores.parquet", ("--embeddings", scored / "e.npy")
    runs = [
        ["--help"],
        ["filter", scores],
        ["select", scores, "-k", 3, "--order", "certain"],
        ["select", scores, "-k", 3, "--order", "diverse", *embeddings],
        ["dedup", scores, *embeddings],
        ["report", scores, "--output", tmp_path / "r.html"],
    ]
    loaded = loaded_by(*runs, *([name, "--help"] for name in (*QUICK, "score", "tta")))
    assert not loaded & (HEAVY | {"scipy", "sklearn", "matplotlib"})
    compared = loaded_by(["compare", predictions, predictions, "--output-dir", tmp_path / "c"])
    assert not compared & (HEAVY | {"sklearn", "scipy"})


def test_the_list_of_commands(capsys):
    assert main([]) == main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.split()[:1] == [name] for line in lines) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert f"vissl-zoo {name}" in shown
    assert "--output" in shown


@pytest.fixture
def calls(scored, photos, small_export, predictions):
    """calls(output) -> for each command on photos a command line that writes `output`, without its suffix."""
    scores, embeddings = scored / "scores.parquet", ("--embeddings", scored / "e.npy")
    model = ("--model", small_export)

    def calls(output):
        return {
            "score": ["score", photos / "00.jpg", *model, "--output", f"{output}.csv"],
            "select": ["select", scores, "-k", 2, "--order", "certain", "--output", f"{output}.jsonl"],
            "filter": ["filter", scores, "--output", f"{output}.txt"],
            "dedup": ["dedup", scores, *embeddings, "--output", f"{output}.parquet"],
            "report": ["report", scores, *embeddings, "--map", "pca", "--output", f"{output}.html"],
            "tta": ["tta", photos / "00.jpg", *model, "--crops", 2, "--output", f"{output}.png"],
            "compare": ["compare", predictions, predictions, "--output-dir", output],
        }

    return calls


ON_PHOTOS = ("score", "select", "filter", "dedup", "report", "tta", "compare")


@pytest.mark.parametrize("name", ON_PHOTOS)
def test_a_file_is_written_whole_or_not_at_all(name, calls, run_command, tmp_path, monkeypatch):
    output = tmp_path / "out"
    output.mkdir()
    command = calls(output if name == "compare" else output / "x")[name]

    def full_disk(old, new):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        outcome = run_command(*command)
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("vissl-zoo: ")
    assert "No space left" in outcome.err
    assert [file.name for file in output.iterdir() if not file.name.endswith(".partial")] == []
    assert run_command(*command).code == 0
    assert {"score": 1, "compare": 2}.get(name, 1) == len(list(output.iterdir()))


@pytest.mark.parametrize("name", ON_PHOTOS)
def test_a_terminal_without_greek_gets_it_all(name, calls, tmp_path, monkeypatch):
    command = [str(word) for word in calls(tmp_path / "x")[name]]
    with open(tmp_path / "said", "w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(command) == 0
    assert (tmp_path / "said").read_text()


@pytest.mark.parametrize("name", [n for n in ON_PHOTOS if n != "compare"])
def test_a_suffix_that_it_cannot_write_is_one_line(name, calls, run_command, tmp_path):
    command = calls(tmp_path / "x")[name]
    for output, said in [
        ("x.gif", "must end in"),
        (f"no/x{Path(command[-1]).suffix}", "no folder"),
        ("..", ""),
    ]:
        outcome = run_command(*command[:-1], tmp_path / output)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert f"--output {tmp_path / output}" in outcome.err
        assert said in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "nowhere/", "--model", "x"],
        ["select", "nowhere.parquet"],
        ["filter", "nowhere.csv"],
        ["dedup", "nowhere.jsonl"],
        ["report", "nowhere.parquet"],
        ["tta", "nowhere.jpg", "--model", "x"],
        ["evaluate", "nowhere"],
        ["compare", "nowhere", "nowhere"],
        ["fit-kappa", "--model", "nowhere", "--output-dir", "x"],
        ["publish", "nowhere", "--repo-id", "a/b", "--dry-run"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_not_there_is_one_line_that_names_it(arguments, run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_command(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("vissl-zoo: ")
    assert outcome.err.count("\n") == 1
    assert "nowhere" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_and_nothing_at_all_are_one_line(name, capsys):
    for arguments in ([name, "--outputt", "x"], [name]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("vissl-zoo: ")
        assert said.count("\n") == 1
        assert f"(see vissl-zoo {name} --help)" in said or "first" in said


def test_a_misspelled_command_is_one_line(capsys):
    assert main(["scor"]) == 2
    assert "did you mean score?" in capsys.readouterr().err
