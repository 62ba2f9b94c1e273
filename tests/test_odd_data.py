"""Odd folders and tables from end to end: train.py, `evaluate` and `score` take the same images of each."""

import functools
import http.server
import threading
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import vissl_zoo
from vissl_zoo.hub import export_model

COUNT = 20  # images of a split
TRAIN = """--image-size 32 --batch-size 8 --method.latent-dim 16 --max-steps 1 --warmup-epochs 0
    --backbone test_resnet --data.max-bad-fraction 0.3"""


def put(file, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 40), 20 + seed).convert("RGB").save(file)
    return file


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    return export_model(model, tmp_path_factory.mktemp("weights") / "export")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a server with the image 0.png."""
    folder = put(tmp_path_factory.mktemp("server") / "0.png").parent
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def class_folders(folder):
    for split in ("train", "test"):
        for i in range(COUNT):
            put(folder / split / "ab"[i % 2] / f"{i}.png", i)


def described(folder, _):
    """A metadata file below says something of two images, and of one that is not there."""
    class_folders(folder)
    for split in ("train", "test"):
        rows = "".join(f"{i}.png,{'cat' if i % 4 else 'dog'}\n" for i in range(0, COUNT, 2))
        (folder / split / "a" / "metadata.csv").write_text(f"file_name,label\n{rows}gone.png,cat\n")
    return "metadata files say nothing of 20 of 40 images, and 2 of their 22 rows are of no image here"


def beside_splits(folder, _):
    """Images beside the splits, and in a third folder."""
    class_folders(folder)
    put(folder / "x.png")
    put(folder / "extra" / "y.png")
    return "left out 2 files that lie outside of train, test, such as extra/y.png"


def tables_and_pictures(folder, _):
    """Tables, stray pictures, and a table without an image."""
    for split in ("train", "test"):
        images = [put(folder / "made.png", i).read_bytes() for i in range(COUNT)]
        labels = ["cat", "dog"] * (COUNT // 2)
        pq.write_table(pa.table({"image": images, "label": labels}), folder / f"{split}.parquet")
    return "left out 1 files that lie beside parquet files that hold images, such as made.png"


def rows_of_all_kinds(folder, address):
    """Rows that are relative paths, paths in an archive and URLs; three of twenty lead nowhere."""
    with zipfile.ZipFile(folder / "in.zip", "w") as archive:
        archive.write(put(folder / "sub" / "0.png"), "x/0.png")
    rows = ["sub/0.png"] * 10 + ["zip://x/0.png::in.zip"] * 4 + [f"{address}/0.png"] * 3
    rows += [f"{address}/gone.png", "gone.png", None]
    labels = [-1.0, 0.0, 1.0, 2.0] * (COUNT // 4)
    for split in ("train", "test"):
        pq.write_table(pa.table({"img": rows, "label": labels, "thumb": rows}), folder / f"{split}.parquet")
    return "left out 1 files that lie beside parquet files that hold images, such as sub/0.png"


@pytest.mark.parametrize("make", [described, beside_splits, tables_and_pictures, rows_of_all_kinds])
def test_odd_data_from_end_to_end(make, export, address, train_main, tmp_path, monkeypatch, capfd, caplog):
    from vissl_zoo.commands import main

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    warning, bad = make(data, address), 3 if make is rows_of_all_kinds else 0
    outcome = train_main(*TRAIN.split(), "--data.path", data, "--output-dir", data / "run")
    assert outcome.code == 0, outcome.err
    evaluated = ("evaluate", export, "--data.path", data, "--protocols", "knn", "--output-dir", "evaluation")
    assert main(list(map(str, evaluated))) == 0
    for _ in range(2):  # the second time beside its own table, and both times beside a run with a gallery
        scored = ("score", "data", "--model", export, "--output", "data/scores.parquet")
        assert main(list(map(str, scored))) == 0
    said = outcome.err + caplog.text + "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert warning in said
    table = pd.read_parquet("data/scores.parquet")
    stray = 2 if make is beside_splits else 0  # photos are scored wherever they lie
    assert (len(table), table.error.notna().sum()) == (2 * COUNT + stray, 2 * bad)
    if bad:
        assert sorted(table.error.dropna()) == ["no such file"] * 4 + ["the row holds no image"] * 2
    assert (data / "run" / "report" / "gallery.png").exists()
