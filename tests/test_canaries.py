"""Canaries: what lies in a folder of photos or of weights runs nothing, and nothing is written through a link there."""

import contextlib
import io
import os
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model


class Fires:
    """Unpickled, it makes the file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    return export_model(model, tmp_path_factory.mktemp("weights") / "export")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def fired(tmp_path):
    return tmp_path / "fired"


@pytest.fixture
def run():
    """run(*arguments) -> (exit code, what was said)."""

    def run(*arguments):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([str(argument) for argument in arguments])
        assert "Traceback" not in said.getvalue()
        return code, said.getvalue()

    return run


def test_the_canary_can_fire(fired):
    pickle.loads(pickle.dumps(Fires(fired)))
    assert fired.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "model.safetensors"])
def test_a_pickle_for_weights(run, export, photos, fired, name):
    weights = export / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    try:
        (export / name).write_bytes(pickle.dumps({"conv1.weight": Fires(fired)}))
        code, said = run("score", photos, "--model", export, "--output", photos / "s.csv")
        assert (code, len(said.splitlines())) == (2, 1), said
        with pytest.raises((RuntimeError, OSError, pickle.UnpicklingError, UserError)):
            timm.create_model(f"local-dir:{export}", pretrained=True)
    finally:
        (export / name).unlink()
        weights.write_bytes(kept)
    assert not fired.exists()


def test_a_pickle_for_embeddings(run, export, photos, fired, tmp_path):
    scores, embeddings = tmp_path / "s.csv", tmp_path / "e.npy"
    assert run("score", photos, "--model", export, "--output", scores)[0] == 0
    np.save(embeddings, np.array([Fires(fired)] * 6, dtype=object), allow_pickle=True)
    for command in ("dedup", "select"):
        code, said = run(command, scores, "--embeddings", embeddings)
        assert (code, len(said.splitlines())) == (2, 1), said
    assert not fired.exists()


CODE = "import pathlib\npathlib.Path({!r}).write_text('')\n"


def test_yaml_tags_and_loading_scripts_beside_photos(run, train_main, export, photos, fired):
    """`datasets` reads the YAML on top of a folder's README.md, and once ran a script named after the folder."""
    tag = f"!!python/object/apply:builtins.open [{fired}, w]"
    (photos / "README.md").write_text(f"---\nconfigs: {tag}\ndataset_info: {tag}\n---\n")
    (photos / "dataset_infos.json").write_text("{}")
    for name in ("photos.py", "conftest.py", "sitecustomize.py", "config.yaml"):
        (photos / name).write_text(CODE.format(str(fired)) if name.endswith("py") else f"a: {tag}\n")
    assert run("score", photos, "--model", export, "--output", photos.parent / "s.csv")[0] in (0, 2)
    outcome = train_main(
        "--data.path", photos, "--max-steps", "1", "--no-report", "--output-dir", photos.parent / "run"
    )
    assert "Traceback" not in outcome.err
    assert not fired.exists()


@pytest.mark.parametrize("name", [".s.csv.lock", "s.csv.partial", "s.csv", ".s.PID.csv", ".g.PID.html"])
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link_beside_the_photos(run, export, photos, tmp_path, name, there):
    """A folder of photos from elsewhere may hold links under the names that outputs will have."""
    target = tmp_path / "precious"
    if there:
        target.write_text("precious")
    (photos / name.replace("PID", str(os.getpid()))).symlink_to(target)
    flags = ("--model", export, "--output", photos / "s.csv", "--gallery", photos / "g.html")
    code, said = run("score", photos, *flags)
    refused = name in (".s.csv.lock", "s.csv.partial")
    assert code == (2 if refused else 0), said
    assert not refused or len(said.splitlines()) == 1
    assert target.exists() == there
    assert not there or target.read_text() == "precious"


def test_a_run_is_not_written_through_links(train_main, small, tmp_path):
    """What an earlier run left is removed with --overwrite; what its links lead to is not."""
    precious, run = tmp_path / "precious", tmp_path / "run"
    for name in ("checkpoints", "export", "report"):
        (precious / name).mkdir(parents=True)
        (precious / name / "mine").write_text("precious")
    (precious / "metrics.jsonl").write_text("precious")
    (precious / "recipe.json").write_text("precious")
    run.mkdir()
    for file in precious.iterdir():
        (run / file.name).symlink_to(file)
    flags = ("--max-steps", "2", "--save-every", "1", "--no-report", "--output-dir", run)
    assert train_main(*small, *flags).code == 2
    assert train_main(*small, *flags, "--overwrite").code == 0
    assert (run / "export" / "model.safetensors").exists()
    for name in ("checkpoints", "export", "report"):
        assert [file.read_text() for file in (precious / name).iterdir()] == ["precious"]
    assert (precious / "metrics.jsonl").read_text() == (precious / "recipe.json").read_text() == "precious"
