"""`score --shard K/N`: the parts of a set, scored apart, are read as the table that one call would have made."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model
from vissl_zoo.photos.score_table import read_embeddings, read_scores


@pytest.fixture(scope="module")
def work(tmp_path_factory, shapes_folder):
    """A folder with a model, 23 photos in two folders, and what a call for all says of them and of a table."""
    work = tmp_path_factory.mktemp("shards")
    for number in range(23):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 34, 3), dtype=np.uint8)
        file = work / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    export_model(model, work / "model")
    score(work, "whole.parquet", shapes_folder)
    return work


def score(work, output, shapes_folder, *flags):
    inputs = [str(work / "photos"), str(shapes_folder / "test.parquet")]
    assert (
        main(
            [
                "score",
                *inputs,
                "--model",
                str(work / "model"),
                "--exact",
                "--output",
                str(work / output),
                *flags,
            ]
        )
        == 0
    )


@pytest.fixture(scope="module")
def shards(work, shapes_folder):
    folder = work / "scores"
    folder.mkdir()
    for number in (3, 1, 2):
        flags = ("--shard", f"{number}/3", "--embeddings", str(folder / f"{number}-of-3.npy"))
        score(work, f"scores/{number}-of-3.parquet", shapes_folder, *flags)
    return folder


def test_the_shards_together_are_the_whole(work, shards):
    whole = read_scores(str(work / "whole.parquet")).set_index("path").sort_index()
    parts = read_scores(str(shards))
    assert parts.attrs["images"] == len(parts) == 63
    parts = parts.set_index("path").sort_index()
    assert parts.index.equals(whole.index)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-5)
    sizes = [len(pd.read_parquet(file)) for file in shards.glob("*.parquet")]
    assert max(sizes) - min(sizes) <= 2


def test_other_commands_read_the_folder(work, shards):
    assert main(["filter", str(shards), "--keep", "0.5", "--output", str(work / "kept.parquet")]) == 0
    assert len(pd.read_parquet(work / "kept.parquet")) == 32


def test_their_embeddings_are_read_as_one(work, shards, shapes_folder):
    score(work, "whole.parquet", shapes_folder, "--embeddings", str(work / "whole.npy"))
    whole, parts = read_scores(str(work / "whole.parquet")), read_scores(str(shards))
    found = read_embeddings(str(shards), parts, "dedup")
    expected = dict(zip(whole["path"], np.load(work / "whole.npy"), strict=True))
    for path, embedding in zip(parts["path"], found, strict=True):
        np.testing.assert_allclose(embedding, expected[path], rtol=1e-4, atol=1e-5)
    flags = ("--embeddings", str(shards), "--output", str(work / "unique.parquet"))
    assert main(["dedup", str(shards), *flags]) == 0
    (shards / "2-of-3.npy").rename(work / "away.npy")
    try:
        with pytest.raises(UserError, match=r"2-of-3\.npy"):
            read_embeddings(str(shards), parts, "dedup")
    finally:
        (work / "away.npy").rename(shards / "2-of-3.npy")


@pytest.mark.parametrize(
    ("flags", "said"),
    {
        ("0/3",): "K/N with K from 1 to N, such as 3/16, not 0/3",
        ("4/3",): "not 4/3",
        ("third",): "not third",
        ("1/64",): "there are only 63 images",
    }.items(),
)
def test_a_shard_that_cannot_be_is_refused(work, shapes_folder, capsys, flags, said):
    inputs = [str(work / "photos"), str(shapes_folder / "test.parquet"), "--model", str(work / "model")]
    assert main(["score", *inputs, "--output", str(work / "1.parquet"), "--shard", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (work / "1.parquet").exists()


def test_all_shards_in_one_file_are_refused(work, capsys):
    assert main(["score", str(work / "photos"), "--shard", "2/3"]) == 2
    assert (
        "--shard needs an --output of its own, such as --output scores/2-of-3.parquet"
        in capsys.readouterr().err
    )


def test_a_folder_that_lacks_a_shard_is_refused(work, shards, capsys):
    hidden = shards / "2-of-3.parquet"
    hidden.rename(work / "elsewhere.parquet")
    try:
        assert main(["filter", str(shards), "--output", str(work / "k.parquet")]) == 2
        assert "lacks the shards 2 of 3" in capsys.readouterr().err
    finally:
        (work / "elsewhere.parquet").rename(hidden)


def test_a_table_that_is_no_shard_is_refused(work, shards, capsys):
    stray = shards / "stray.parquet"
    stray.write_bytes((work / "whole.parquet").read_bytes())
    try:
        assert main(["filter", str(shards), "--output", str(work / "k.parquet")]) == 2
        assert "stray.parquet is no shard of those beside it" in capsys.readouterr().err
    finally:
        stray.unlink()


def test_a_shard_called_again_scores_nothing_anew(work, shards, shapes_folder, capsys):
    score(
        work,
        "scores/1-of-3.parquet",
        shapes_folder,
        "--shard",
        "1/3",
        "--embeddings",
        str(shards / "1-of-3.npy"),
    )
    assert "nothing is left to do" in capsys.readouterr().err
