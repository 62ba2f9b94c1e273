"""Under LC_ALL=C, where Python reads names as ASCII, the programs speak UTF-8 all the same."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import vissl_zoo
from vissl_zoo.hub import export_model

ROOT = Path(__file__).parents[1]
C = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "ACCELERATE_USE_CPU": "true"}
C["PYTHONPATH"] = str(ROOT)
COMMAND = [sys.executable, "-c", "from vissl_zoo.commands import main; raise SystemExit(main())"]


def run(*command):
    done = subprocess.run([*map(str, command)], env=C, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "é ü" / "写真"
    made.mkdir(parents=True)
    for name in ("ä.png", "plain.png", "a b;c#d%e'f\"g.png", "-dash.png", "🙂.png"):
        Image.radial_gradient("L").resize((24, 24)).save(made / name)
    return made


def test_photos_are_scored_under_their_names(folder):
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    export = export_model(model, folder.parent / "modèle")
    table = folder.parent / "tablé.parquet"
    run(*COMMAND, "score", folder, "--model", export, "--output", table)
    names = {Path(path).name for path in pd.read_parquet(table)["path"]}
    assert names == {path.name for path in folder.iterdir()}


def test_a_training_reports_into_a_folder_of_any_name(folder, small):
    out = folder.parent / "läuft"
    said = run(
        sys.executable,
        ROOT / "train.py",
        *small,
        "--max-steps",
        "2",
        "--report-images",
        "120",
        "--output-dir",
        out,
    )
    assert "läuft/report/index.html" in said
    assert "läuft" in (out / "export" / "README.md").read_text(encoding="utf-8")


def test_a_python_that_cannot_be_told_is_not_started_for_ever():
    script = "import sys; from vissl_zoo.cli import program_arguments; print(program_arguments(), sys.flags.utf8_mode)"
    done = subprocess.run([sys.executable, "-E", "-c", script, "é"], env=C, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == "['é'] 1"
