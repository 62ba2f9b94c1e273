import logging
import os

import datasets
import pytest
from datasets import Dataset, Features, Image, Value

from vissl_zoo.data import BadImage, available_splits, open_images
from vissl_zoo.data.decode import decode
from vissl_zoo.data.sources import find_source
from vissl_zoo.errors import UserError


@pytest.fixture
def hub(monkeypatch, picture):
    """A Hub with one data set, org/pets, that has the configurations small and large; returns the calls."""
    calls = []

    def get_dataset_split_names(*name):
        if name == ("org/pets",):
            raise ValueError("Config name is missing.\nPlease pick one among: small, large")
        if name not in (("org/pets", "small"), ("org/cats",)):
            raise ConnectionError(f"Couldn't reach {name[0]} on the Hub")
        return ["train", "validation"]

    def load_dataset(*name, split):
        calls.append((*name, split))
        labels = ["x", "y"] if split == "train" else ["y"]
        data = {"photo": [{"bytes": picture(n), "path": None} for n in range(len(labels))], "label": labels}
        return Dataset.from_dict(data, features=Features(photo=Image(), label=Value("string")))

    monkeypatch.setattr(datasets, "get_dataset_split_names", get_dataset_split_names)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_a_hub_data_set(hub):
    assert available_splits("org/cats") == ["train", "validation"]
    assert hub == []  # the names alone fetch nothing
    table = open_images("org/cats", split="val")
    assert (table.split, table.class_names, table.labels.tolist()) == ("validation", ["x", "y"], [1])
    assert (table.name(0), table.size(0)) == ("row 0", (6, 8))
    assert hub == [("org/cats", "validation"), ("org/cats", "train")]


def test_a_configuration_of_a_hub_data_set(hub):
    assert len(open_images("org/pets:small")) == 2
    assert hub[0] == ("org/pets", "small", "train")
    with pytest.raises(UserError) as caught:
        open_images("org/pets")
    assert "Please pick one among: small, large" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failing_download_is_a_user_error(hub, monkeypatch):
    def load_dataset(*name, split):
        raise RuntimeError("the connection\nbroke")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"org/cats: .* could be loaded.*: the connection broke"):
        open_images("org/cats")


def test_the_local_path_wins_over_the_hub(hub, write_images, monkeypatch):
    folder = write_images({"cats/a.png": 1}, folder="org")
    monkeypatch.chdir(folder.parent)
    table = open_images("org/cats")
    assert (table.name(0), hub) == ("a.png", [])


def test_the_hub_cache_serves_offline(hub_cache, picture, caplog):
    """The layout that `hf download` leaves, made by hand."""
    repository = hub_cache / "hub" / "datasets--org--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    (snapshot / "data").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for n, split in enumerate(("train", "test")):
        blob = repository / "blobs" / str(n)
        data = {"image": [{"bytes": picture(n), "path": None}]}
        Dataset.from_dict(data, features=Features(image=Image())).to_parquet(blob)
        (snapshot / "data" / f"{split}-00000-of-00001.parquet").symlink_to(blob)
    assert available_splits("org/tiny") == ["train", "test"]
    with caplog.at_level(logging.WARNING):
        table = open_images("org/tiny", split="test")
    assert (len(table), table.size(0), table.path) == (1, (6, 8), "org/tiny")
    assert "org/tiny: the Hub does not answer; using the files in its cache" in caplog.text
    with pytest.raises(UserError, match="org/tiny:german: neither"):
        # files alone do not say which configuration is theirs
        open_images("org/tiny:german")


def test_an_empty_split_is_an_error(monkeypatch, hub):
    empty = Dataset.from_dict({"image": []}, features=Features(image=Image()))
    monkeypatch.setattr(datasets, "load_dataset", lambda *name, split: empty)
    with pytest.raises(UserError, match='org/cats: the split "train" is empty'):
        open_images("org/cats")


@pytest.mark.parametrize("path", ["nothing", "a/b/c", "./x", "~/nothing"])
def test_what_is_no_hub_id_never_asks_the_hub(monkeypatch, path):
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *name: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match="nor a Hub data set id"):
        find_source(path)


def test_a_file_that_cannot_be_read_costs_its_row_only(write_images):
    folder = write_images({"a.png": 1, "gone.png": 2})
    (folder / "b.png").symlink_to(folder / "nowhere")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    table = open_images(folder)
    (folder / "gone.png").unlink()
    assert table.fingerprint != open_images(folder).fingerprint
    assert table.read(0).size == (8, 6)
    for row, name in ((1, "b.png"), (2, "gone.png"), (3, "loop.png")):
        with pytest.raises(BadImage, match=f"^{name}: "):
            table.read(row)


def test_odd_file_names_are_images_like_any_other(write_images):
    names = ["a\nb.png", "a'b.png", 'a"b.png', "a#1.png", "a%20b.png", "é 日.png"]
    table = open_images(write_images(dict.fromkeys(names, 1)))
    assert sorted(names) == [table.name(row) for row in range(len(table))]
    assert {table.read(row).size for row in range(len(table))} == {(8, 6)}


def test_a_name_that_is_not_utf_8_is_read_all_the_same(write_images, picture):
    folder = write_images(
        {"a/a.png": 1, "b/b.png": 2, "b/\\xfe.png": 4}
    )  # the last has a backslash of its own
    with open(os.fsencode(folder) + b"/b/\xff.png", "wb") as file:
        file.write(picture(3))
    table = open_images(folder)
    assert (len(table.fingerprint) > 16, table.class_names) == (True, ["a", "b"])
    assert [table.name(row) for row in range(4)] == ["a/a.png", "b/\\xfe.png", "b/b.png", "b/\\xff.png"]
    assert table.read(3).tobytes() == decode(picture(3))[0].tobytes()
    assert table.read(1).tobytes() == decode(picture(4))[0].tobytes()


def test_a_folder_that_may_not_be_entered_is_named(write_images, monkeypatch, caplog):
    folder = write_images({"a/1.png": 1, "secret/2.png": 2})
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(open_images(folder)) == 1
    assert f"{folder}/secret: left out, since it may not be entered (Permission denied)" in caplog.text
