"""Parts of a split, against `datasets`' own slicing, for every kind of source."""

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value

from vissl_zoo.data import available_splits, open_images, open_stream
from vissl_zoo.data import sources as module
from vissl_zoo.data.shapes import shapes
from vissl_zoo.data.table import sliced_rows, split_name
from vissl_zoo.errors import UserError

SLICES = ["[:4]", "[4:]", "[-3:]", "[2:-2]", "[:90%]", "[90%:]", "[10%:25%]", "[-20%:]", "[:]"]


@pytest.mark.parametrize("bounds", SLICES)
@pytest.mark.parametrize("count", [10, 17, 100])
def test_rows_are_those_of_datasets(tmp_path, bounds, count):
    whole = Dataset.from_dict({"n": list(range(count))})
    instruction = datasets.ReadInstruction.from_spec(f"train{bounds}")
    (absolute,) = instruction.to_absolute({"train": count})
    expected = whole[absolute.from_ : absolute.to]["n"]
    assert sliced_rows("x", "train", bounds[1:-1], count).tolist() == expected


@pytest.mark.parametrize("share", range(20, 100, 7))
def test_two_parts_are_the_whole_and_share_nothing(share):
    for count in (3, 10, 149, 45_001):
        bounds = [f":{share}%", f"{share}%:"]
        if 0 < round(share * count / 100) < count:
            parts = [sliced_rows("x", "train", b, count) for b in bounds]
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(count))


@pytest.fixture
def sources(write_images, write_parquet, picture, tmp_path, monkeypatch):
    """By kind, the path of six pictures called 0 to 5, with a second split of one."""
    folder = {f"train/{'ab'[n % 2]}/{n}.png": n for n in range(6)} | {"test/a/9.png": 9}
    for split, numbers in {"train": range(6), "test": [9]}.items():
        write_parquet(
            tmp_path / "tables" / f"{split}.parquet", [picture(n) for n in numbers], [0] * len(numbers)
        )

    def load_dataset(*name, split):
        data = {"photo": [{"bytes": picture(n), "path": None} for n in range(6)]}
        return Dataset.from_dict(data, features=Features(photo=Image()))

    path = {"folder": write_images(folder), "parquet": tmp_path / "tables", "hub": "org/cats"}

    def use(kind):
        if kind == "hub":
            monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *name: ["train", "test"])
            monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return path[kind]

    return use


@pytest.mark.parametrize("kind", ["folder", "parquet", "hub"])
def test_a_part_of_every_kind_of_source(sources, kind):
    path = sources(kind)
    whole, part = open_images(path), open_images(path, split="training[2:5]")
    assert (len(part), part.split, part.class_names) == (3, "train[2:5]", whole.class_names)
    assert [np.asarray(part.read(n)).tobytes() for n in range(3)] == [
        np.asarray(whole.read(n)).tobytes() for n in range(2, 5)
    ]
    assert part.name(0) == ("row 0" if kind != "folder" else whole.name(2))
    if whole.labels is not None:
        assert part.labels.tolist() == whole.labels[2:5].tolist()
    assert available_splits(path) == ["train", "test"]
    same, other = open_images(path, split="train[2:-1]"), open_images(path, split="train[1:4]")
    assert part.fingerprint == same.fingerprint
    assert len({t.fingerprint for t in (whole, part, other)}) == 3


def test_a_part_of_the_embedded_data(monkeypatch):
    monkeypatch.setattr(module, "_draw_shapes", lambda split: shapes(split, count=200))
    part = open_images("shapes", split="test[90%:]")
    assert (len(part), part.split) == (20, "test[90%:]")
    assert len(part.column("ambiguity")) == len(part.labels) == 20


def test_classes_are_numbered_as_in_the_whole(tmp_path, picture):
    features = Features(image=Image(), label=Value("string"))
    images = [{"bytes": picture(n), "path": None} for n in range(4)]
    data = {"image": images, "label": ["x", "y", "z", None]}
    Dataset.from_dict(data, features=features).to_parquet(tmp_path / "train.parquet")
    part = open_images(tmp_path, split="train[2:]")
    assert (part.labels.tolist(), part.class_names) == ([2, -1], ["x", "y", "z"])
    assert open_images(tmp_path, split="train[3:]").labels is None


@pytest.mark.parametrize(
    "text",
    ["train[", "train]", "train[5]", "train[a:b]", "a[1:2:3]", "[1:2]", "a[1.5%:]", "a[150%:]", "a[10%:200]"],
)
def test_malformed_parts_are_refused(text):
    with pytest.raises(UserError) as caught:
        split_name("photos", text)
    assert (
        str(caught.value)
        == f'photos: "{text}" is no split; a part of one is written train[:45000] or train[90%:]'
    )


@pytest.mark.parametrize(
    "bounds, message",
    [
        ("5:5", 'photos: "train[5:5]" is empty; "train" has 10 images'),
        ("7:3", 'photos: "train[7:3]" is empty; "train" has 10 images'),
        (":2%", 'photos: "train[:2%]" is empty; "train" has 10 images'),
        (":11", 'photos: "train[:11]" reaches beyond the 10 images of "train"'),
        ("-11:", 'photos: "train[-11:]" reaches beyond the 10 images of "train"'),
    ],
)
def test_empty_parts_and_parts_outside_are_refused(bounds, message):
    with pytest.raises(UserError) as caught:
        sliced_rows("photos", "train", bounds, 10)
    assert str(caught.value) == message


def test_an_unknown_split_of_which_a_part_is_wanted(write_images):
    with pytest.raises(UserError, match='no split "test"; it has train'):
        open_images(write_images({"a.png": 1}), split="test[:1]")


def test_a_stream_has_no_parts(sources):
    with pytest.raises(
        UserError, match=r'"train\[:2\]": of data that are streamed there is no part, only "train"'
    ):
        open_stream(sources("parquet"), 8, split="train[:2]")
