"""What the tests of the commands on photos share: a model, photos, and their scores."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.hub import export_model

COUNT = 12


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def run_command() -> Callable[..., Outcome]:
    """run_command(*arguments) -> Outcome of `vissl-zoo ARGUMENTS`, in this process."""

    def run_command(*arguments: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(a) for a in arguments])
        return Outcome(code, out.getvalue(), err.getvalue())

    return run_command


@pytest.fixture(scope="session")
def small_export(tmp_path_factory) -> Path:
    """A small model with a κ head and random weights."""
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0)
    with torch.no_grad():  # a fresh κ head says nearly the same of every image
        for parameter in model.kappa_head.parameters():
            parameter.mul_(3)
    return export_model(model, tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """COUNT photos of many sizes; 10.jpg is 3.jpg once more."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        coarse = rng.integers(0, 256, (2 + i % 5, 3 + i % 4, 3), dtype=np.uint8)
        size = (60 + 11 * i, 90 - 3 * i)
        Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(folder / f"{i:02}.jpg")
    (folder / "10.jpg").write_bytes((folder / "03.jpg").read_bytes())
    return folder


@pytest.fixture(scope="session")
def scored(run_command, small_export, photos, tmp_path_factory) -> Path:
    """A folder with scores.parquet, e.npy and gallery.html of `photos`; read it, change nothing."""
    folder = tmp_path_factory.mktemp("scored")
    flags = ("--output", folder / "scores.parquet", "--embeddings", folder / "e.npy")
    outcome = run_command(
        "score", photos, "--model", small_export, *flags, "--gallery", folder / "gallery.html"
    )
    assert outcome.code == 0, outcome.err
    return folder
