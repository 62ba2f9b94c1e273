"""What holds for every command: a help, one line for what is mistyped, and no library that it does not need."""

import json
import subprocess
import sys

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
    assert not compared & (HEAVY | {"sklearn"})


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


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_and_nothing_at_all_are_one_line(name, capsys):
    for arguments in ([name, "--outputt", "x"], [name]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("vissl-zoo: ")
        assert said.count("\n") == 1
        assert "--help" in said or "--repo-id" in said


def test_a_misspelled_command_is_one_line(capsys):
    assert main(["scor"]) == 2
    assert "did you mean score?" in capsys.readouterr().err
