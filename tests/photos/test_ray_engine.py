"""`score --engine ray`: what actors write, one of them killed, is the table that a call without Ray would have made."""

import contextlib
import sys
import threading
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model
from vissl_zoo.photos.inputs import Inputs, find_inputs
from vissl_zoo.photos.ray_engine import RayParts, import_ray
from vissl_zoo.photos.score_table import read_embeddings, read_scores

SHARDS = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory, shapes_folder):
    """A folder with a model, 23 photos in two folders, and what a call without Ray says of them and of a table."""
    work = tmp_path_factory.mktemp("ray")
    for number in range(23):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 34, 3), dtype=np.uint8)
        file = work / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    export_model(model, work / "model")
    paths = [str(work / "photos"), str(shapes_folder / "test.parquet")]
    (work / "score.txt").write_text("\n".join(["score", *paths, "--model", str(work / "model"), "--exact"]))
    assert score(work, "--output", work / "whole.parquet", "--embeddings", work / "whole.npy") == 0
    return work


def score(work, *flags) -> int:
    return main([*(work / "score.txt").read_text().split("\n"), *map(str, flags)])


def score_on_ray(work, *flags) -> int:
    folder = work / "scores"
    return score(
        work, "--engine", "ray", "--output-dir", folder, "--embeddings", folder, "--shards", SHARDS, *flags
    )


@contextlib.contextmanager
def killer():
    """Kill the first actor while it scores; the list has its id then."""
    killed, over = [], threading.Event()

    def title(process: psutil.Process) -> str:
        with contextlib.suppress(psutil.Error, IndexError):
            return process.cmdline()[0]
        return ""

    def watch():
        found = []
        while not over.wait(0.01 if found else 0.5) and not killed:
            found = found or psutil.Process().children(recursive=True)  # slow: not in every turn
            found = [process for process in found if title(process).startswith("ray::ShardScorer")]
            for process in found:
                if title(process).startswith("ray::ShardScorer.score"):
                    process.kill()
                    killed.append(process.pid)
                    break

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def cluster():
    """Ray on two cores of this machine, for all tests here."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install vissl_zoo[ray]")
    import_ray()  # no word of its use to its makers
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def parts(work, cluster):
    """The folder that a call left of which an actor was killed."""
    with killer() as killed:
        assert score_on_ray(work) == 0
    assert killed
    return work / "scores"


def test_the_parts_are_the_table_that_a_call_without_ray_makes(work, parts):
    names = [f"{number}-of-{SHARDS}" for number in range(1, SHARDS + 1)]
    assert sorted(file.stem for file in parts.glob("*.parquet")) == names
    assert sorted(file.stem for file in parts.glob("*.npy")) == names
    whole, found = read_scores(str(work / "whole.parquet")), read_scores(str(parts))
    pd.testing.assert_frame_equal(
        found.set_index("path").sort_index(), whole.set_index("path").sort_index(), check_exact=True
    )
    expected = dict(zip(whole["path"], np.load(work / "whole.npy"), strict=True))
    embeddings = read_embeddings(str(parts), found, "dedup")
    assert all(np.array_equal(expected[p], e) for p, e in zip(found["path"], embeddings, strict=True))
    assert main(["dedup", str(parts), "--embeddings", str(parts), "--output", str(work / "unique.csv")]) == 0


def test_only_parts_that_do_not_verify_are_made_again(work, parts, capsys):
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in parts.glob("*.parquet")}
    began = time.monotonic()
    assert score_on_ray(work) == 0
    assert time.monotonic() - began < 5  # no actor was needed
    assert all((parts / name).stat().st_mtime_ns == when for name, (when, _) in before.items())
    (parts / "2-of-4.parquet").write_bytes(before["2-of-4.parquet"][1][:-100])
    (parts / ".3-of-4.1.parquet").touch()  # as a killed actor leaves it
    assert score_on_ray(work) == 0
    changed = [name for name, (when, _) in before.items() if (parts / name).stat().st_mtime_ns != when]
    assert changed == ["2-of-4.parquet"]
    assert read_scores(str(parts)).attrs["images"] == 63
    assert not (parts / ".3-of-4.1.parquet").exists()


def test_an_error_in_an_actor_is_one_line(work, cluster, capfd, tmp_path):
    (tmp_path / "1-of-1.parquet").mkdir()
    assert score(work, "--engine", "ray", "--output-dir", tmp_path, "--shards", 1) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line and "scoring" not in line]
    assert said == [f"vissl-zoo: {tmp_path}/1-of-1.parquet cannot be written: Is a directory"]


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--engine", "ray"], "--engine ray takes --output-dir DIR"),
        (["--engine", "ray", "--output-dir", "x", "--output", "s.csv"], "neither --output nor --shard"),
        (["--engine", "ray", "--output-dir", "x", "--shard", "1/2", "--output", "s.parquet"], "--shard"),
        (["--engine", "ray", "--output-dir", "model/config.json"], "the folder cannot be made"),
        (["--engine", "ray", "--output-dir", "x", "--shards", "64"], "--shards 64: there are only 63 images"),
        (["--output-dir", "x"], "--output-dir goes with --engine ray"),
        (["--actors", "2"], "--actors goes with --engine ray"),
        (["--engine", "spark", "--output-dir", "x"], "ray"),
    ],
)
def test_flags_that_do_not_go_together(work, capsys, monkeypatch, flags, said):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.chdir(work)
    assert score(work, *flags) == 2
    assert said in capsys.readouterr().err


def test_a_folder_with_parts_of_another_set_is_refused(work, capsys, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    (tmp_path / "1-of-3.parquet").touch()
    assert score(work, "--engine", "ray", "--output-dir", tmp_path, "--shards", 4) == 2
    assert "holds 1-of-3.parquet, which is none of the 4 parts" in capsys.readouterr().err


def test_without_ray_one_line_says_what_to_install(work, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert score(work, "--engine", "ray", "--output-dir", "parts") == 2
    error = capsys.readouterr().err
    assert error == "vissl-zoo: --engine ray needs Ray: pip install vissl_zoo[ray]\n"
    with pytest.raises(UserError, match="needs Ray"):
        import_ray()


def test_there_is_a_part_for_each_parquet_file_or_for_1000_images(work, shapes_folder, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")

    def parts(inputs):
        return len(RayParts(inputs, tmp_path, None, None, None).tables)

    assert parts(find_inputs([str(shapes_folder)])) == 2
    assert parts(find_inputs([str(shapes_folder / "test.parquet")])) == 1
    assert parts(find_inputs([str(work / "photos"), str(shapes_folder)])) == 1
    (part,) = find_inputs([str(work / "photos")]).parts
    assert parts(Inputs([part._replace(paths=["x"] * 2001)], 0)) == 3
