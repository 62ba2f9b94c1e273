import base64
import json
import os
import pickle
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vissl_zoo.data import BadImage, available_splits, open_images, open_stream
from vissl_zoo.data.decode import decode
from vissl_zoo.data.files import find_local_files
from vissl_zoo.data.sources import _file_fingerprint


def same(image, encoded: bytes) -> bool:
    return np.array_equal(np.asarray(image), np.asarray(decode(encoded)[0]))


def test_folder_without_classes(write_images, picture):
    folder = write_images({"b.png": 1, "a.png": 2, "c/d.png": 3})
    table = open_images(folder)
    assert len(table) == 3
    assert (table.labels, table.class_names) == (None, None)
    assert [table.name(row) for row in range(3)] == ["a.png", "b.png", "c/d.png"]
    assert same(table.read(0), picture(2))
    assert table.size(0) == (6, 8)


def test_folder_with_classes(write_images):
    table = open_images(write_images({"dog/1.png": 1, "cat/1.png": 2, "dog/x/2.png": 3}))
    assert table.class_names == ["cat", "dog"]
    assert table.labels.dtype == np.int64
    assert dict(zip(map(table.name, range(3)), table.labels.tolist(), strict=True)) == {
        "cat/1.png": 0, "dog/1.png": 1, "dog/x/2.png": 1,
    }  # fmt: skip


def test_classes_are_numbered_alike_in_every_split(write_images):
    folder = write_images({"train/a/1.png": 1, "train/b/1.png": 2, "test/b/1.png": 3})
    assert available_splits(folder) == ["train", "test"]
    test = open_images(folder, split="test")
    assert (test.labels.tolist(), test.class_names, test.name(0)) == ([1], ["a", "b"], "test/b/1.png")


def test_a_split_without_classes_leaves_those_of_the_others(write_images):
    folder = write_images({"train/a/1.png": 1, "train/b/1.png": 2, "unlabeled/3.png": 3})
    assert open_images(folder).labels.tolist() == [0, 1]
    assert open_images(folder, split="unlabeled").labels is None


def test_one_folder_is_no_class(write_images):
    assert open_images(write_images({"holiday/1.png": 1, "holiday/2.png": 2})).labels is None


def test_folder_described_by_a_metadata_file(write_images, picture):
    rows = [{"file_name": f"{n}.png", "label": "ab"[n % 2], "ambiguity": n / 4} for n in range(3)]
    metadata = "\n".join(map(json.dumps, rows)).encode()
    table = open_images(write_images({"0.png": 0, "1.png": 1, "2.png": 2, "metadata.jsonl": metadata}))
    assert (table.labels.tolist(), table.class_names) == ([0, 1, 0], ["a", "b"])
    assert table.column("ambiguity").tolist() == [0, 0.25, 0.5]
    assert table.name(2) == "2.png"
    assert same(table.read(2), picture(2))


def test_single_image(write_images, picture):
    table = open_images(write_images({"a.png": 5}) / "a.png")
    assert (len(table), table.name(0)) == (1, "a.png")
    assert same(table.read(0), picture(5))


def test_relative_paths_and_a_later_change_of_folder(write_images, picture, monkeypatch, tmp_path):
    folder = write_images({"a.png": 5})
    monkeypatch.chdir(folder.parent)
    table = open_images(folder.name)
    monkeypatch.chdir("/")
    assert table.name(0) == "a.png"
    assert same(table.read(0), picture(5))


def test_parquet_with_hugging_face_features(tmp_path, picture, write_parquet):
    pictures = [picture(n) for n in range(3)]
    path = write_parquet(tmp_path / "x.parquet", pictures, [1, 0, -1], ambiguity=[0.5, 0.25, 0.0])
    table = open_images(path)
    assert (table.labels.tolist(), table.class_names) == ([1, 0, -1], ["cat", "dog"])
    assert table.name(2) == "row 2"
    assert all(same(table.read(row), pictures[row]) for row in range(3))
    assert table.column("ambiguity").tolist() == [0.5, 0.25, 0.0]
    assert table.column("absent") is None
    assert table.column("image") is None


@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary"])
def test_parquet_without_features(tmp_path, picture, kind):
    pictures = [picture(n) for n in range(3)]
    if kind == "struct":
        values = [{"bytes": p, "path": f"d/{n}.png"} for n, p in enumerate(pictures)]
        column = pa.array(values, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    else:
        column = pa.array(pictures, pa.binary() if kind == "binary" else pa.large_binary())
    pq.write_table(
        pa.table({"n": [1, 2, 3], "img": column, "label": ["b", "a", None]}), tmp_path / "x.parquet"
    )
    table = open_images(tmp_path / "x.parquet")
    assert (table.labels.tolist(), table.class_names) == ([1, 0, -1], ["a", "b"])
    assert table.name(1) == ("d/1.png" if kind == "struct" else "row 1")
    assert same(table.read(1), pictures[1])


def test_parquet_folder_and_glob(tmp_path, picture, write_parquet):
    folder = tmp_path / "d [1]" / ".cache"  # names that globs and hidden-file rules trip over
    for n, split in enumerate(("train", "test")):
        write_parquet(folder / f"{split}.parquet", [picture(n)], [n])
    for path in (folder, f"{tmp_path}/d [[]1]/.cache/*.parquet"):
        assert available_splits(path) == ["train", "test"]
        for n, split in enumerate(("train", "test")):
            table = open_images(path, split=split)
            assert (table.split, table.labels.tolist()) == (split, [n])
            assert same(table.read(0), picture(n))


def test_string_labels_are_numbered_alike_in_every_split(tmp_path, picture):
    for split, labels in {"train": ["x", "y", "z"], "test": ["z"]}.items():
        data = {"image": [picture(0)] * len(labels), "label": labels}
        pq.write_table(pa.table(data), tmp_path / f"{split}.parquet")
    test = open_images(tmp_path, split="test")
    assert (test.labels.tolist(), test.class_names) == ([2], ["x", "y", "z"])


def test_split_synonyms(write_images):
    folder = write_images({"train/1.png": 1, "val/2.png": 2})
    assert (
        open_images(folder, split="val").split
        == open_images(folder, split="validation").split
        == "validation"
    )


def test_fingerprint_follows_the_data(write_images):
    folder = write_images({"train/a.png": 1, "test/a.png": 2})
    first = open_images(folder).fingerprint
    assert open_images(folder).fingerprint == first
    assert open_images(folder, split="test").fingerprint != first
    write_images({"train/b.png": 3})
    assert open_images(folder).fingerprint != first


def test_fingerprint_of_a_moved_folder_stays(write_images, tmp_path):
    folder = write_images({"a.png": 1})
    first = open_images(folder).fingerprint
    folder.rename(tmp_path / "elsewhere")
    assert open_images(tmp_path / "elsewhere").fingerprint == first


@pytest.mark.parametrize("kind", ["png", "parquet"])
def test_fingerprints_of_files_that_agree_in_all_but_their_content_differ(tmp_path, kind):
    """As an archive unpacks them: equal names, sizes and times."""
    fingerprints = set()
    for content in (b"a", b"b"):
        folder = tmp_path / content.decode()
        folder.mkdir()
        for n in range(40):
            (folder / f"{n:02}.{kind}").write_bytes(b"x" * 50_000 + content)
            os.utime(folder / f"{n:02}.{kind}", (1, 1))
        files = find_local_files(str(folder))
        fingerprints.add(_file_fingerprint(files, "train", None))
    assert len(fingerprints) == 2


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_tables_pickle(write_images, tmp_path, picture, kind, write_parquet):
    path = write_images({"a.png": 1})
    if kind == "parquet":
        path = write_parquet(tmp_path / "x.parquet", [picture(1)], [0])
    table = pickle.loads(pickle.dumps(open_images(path)))
    assert same(table.read(0), picture(1))


def test_shapes_are_embedded():
    assert available_splits("shapes") == ["train", "test"]
    table = open_images("shapes", split="test")
    assert len(table) == len(table.labels) == len(table.column("ambiguity"))
    assert table.read(0).size == (32, 32)
    assert table.fingerprint == open_images("shapes", split="test").fingerprint


def test_progress_bars_of_datasets_are_silent_and_left_as_they_were(tmp_path, picture, capfd, write_parquet):
    path = write_parquet(tmp_path / "x.parquet", [picture(0)], [0])
    capfd.readouterr()
    shown = datasets.are_progress_bars_disabled()
    open_images(path)
    assert datasets.are_progress_bars_disabled() == shown
    assert capfd.readouterr().err == ""


def test_selected_rows_labels_and_columns_are_those_chosen(shapes_folder):
    table = open_images(shapes_folder, split="test")
    rows = np.array([31, 4, 4, 0])
    chosen = table.select(rows)
    assert len(chosen) == 4
    assert chosen.labels.tolist() == table.labels[rows].tolist()
    assert chosen.column("ambiguity").tolist() == table.column("ambiguity")[rows].tolist()
    assert all(chosen.read(i).tobytes() == table.read(row).tobytes() for i, row in enumerate(rows))
    assert chosen.select(np.array([1])).read(0).tobytes() == table.read(4).tobytes()
    assert len(table) == 40


def test_fingerprints_tell_selections_apart(shapes_folder):
    table = open_images(shapes_folder, split="test")
    assert table.fingerprint
    selections = [np.arange(5), np.arange(6), np.arange(5)[::-1]]
    prints = [table.select(rows).fingerprint for rows in selections] + [table.fingerprint]
    assert len(set(prints)) == len(prints)
    assert table.select(np.arange(5)).fingerprint == prints[0]
    assert table.select(np.arange(6)).select(np.arange(5)).fingerprint == prints[0]  # the same images
    assert pickle.loads(pickle.dumps(table.select(np.arange(5)))).fingerprint == prints[0]


@pytest.mark.parametrize("streamed", [False, True])
def test_images_as_paths_urls_archives_and_lists(tmp_path, picture, write_images, streamed):
    folder = write_images({"d/a.png": 1, "d/é b.png": 2})
    with zipfile.ZipFile(folder / "d" / "in.zip", "w") as archive:
        archive.writestr("x/c.png", picture(3))
    inline = "data:image/png;base64," + base64.b64encode(picture(4)).decode()
    places = ["a.png", "é b.png", "zip://x/c.png::in.zip", inline, None, "", str(folder / "d" / "a.png")]
    pq.write_table(pa.table({"image": places}), folder / "d" / "paths.parquet")
    lists = pa.array(
        [[picture(1)], [picture(2)], [picture(3)], [picture(4)], [], [picture(1)] * 2, [picture(1)]]
    )
    pq.write_table(pa.table({"image": lists}), tmp_path / "lists.parquet")
    for file in (folder / "d" / "paths.parquet", tmp_path / "lists.parquet"):
        table = open_images(file)
        for row, number in enumerate((1, 2, 3, 4)):
            assert same(table.read(row), picture(number))
        assert same(table.read(6), picture(1))
        for row in (4, 5):
            with pytest.raises(BadImage, match=r"the row holds (no image|2 images, not one)"):
                table.read(row)
        stream = open_stream(file if streamed else table, 8, workers=1, max_bad_fraction=0.5)
        batches = stream.batches(7)
        assert len(next(batches).indices) == 7
        batches.close()
        assert len(stream.bad) == 2
