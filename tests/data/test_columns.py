import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from vissl_zoo.data.columns import image_column, label_column, read_labels
from vissl_zoo.errors import UserError

STRUCT = {"bytes": Value("binary"), "path": Value("string")}


def table(**features) -> Dataset:
    """No rows: the columns are chosen by their types."""
    return Dataset.from_dict({name: [] for name in features}, features=Features(features))


@pytest.mark.parametrize(
    "features, expected",
    [
        ({"image": Value("binary"), "thumb": Image()}, "image"),
        ({"mask": Value("binary"), "thumb": Image()}, "thumb"),
        ({"a": Image(), "image": Image()}, "image"),
        ({"a": Image(), "b": Image(), "image": Value("string")}, "a"),
        ({"caption": Value("string"), "image": Value("string")}, "image"),
        ({"image": datasets.List(Image())}, "image"),
        ({"mask": Value("binary"), "img": Value("binary")}, "img"),
        ({"x": Value("int64"), "jpg": Value("large_binary")}, "jpg"),
        ({"x": Value("binary"), "image": STRUCT}, "image"),
        ({"x": {"bytes": Value("binary")}}, "x"),
    ],
)
def test_image_column(features, expected):
    assert image_column(table(**features), "d") == expected


def test_a_given_image_column_wins():
    assert image_column(table(image=Image(), other=Value("binary")), "d", "other") == "other"


@pytest.mark.parametrize(
    "name, message",
    [
        (None, "d: no column holds images; the columns are text, n"),
        ("photo", 'd: no image column "photo"; the columns are text, n'),
        ("n", 'd: column "n" holds int64, not images or their paths'),
    ],
)
def test_no_image_column(name, message):
    with pytest.raises(UserError) as caught:
        image_column(table(text=Value("string"), n=Value("int64")), "d", name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "features, expected",
    [
        ({"label": Value("int64"), "kind": ClassLabel(names=["a"])}, "kind"),
        ({"coarse": ClassLabel(names=["a"]), "fine_label": ClassLabel(names=["a"])}, "fine_label"),
        ({"labels": ClassLabel(names=["a"]), "label": ClassLabel(names=["a"])}, "label"),
        ({"label": Value("uint8")}, "label"),
        ({"label": Value("large_string")}, "label"),
        ({"label": Value("float32")}, "label"),
        ({"label": datasets.List(Value("int64"))}, None),
        ({"label": Value("null")}, None),
        ({"target": Value("int64")}, None),
    ],
)
def test_label_column(features, expected):
    assert label_column(table(**features), "d") == expected


def test_a_given_label_column_wins():
    assert label_column(table(label=Value("int64"), target=Value("int16")), "d", "target") == "target"


@pytest.mark.parametrize(
    "name, message",
    [
        ("y", 'd: no label column "y"; the columns are label, p'),
        ("p", 'd: label column "p" holds List, not integers, class labels or strings'),
    ],
)
def test_no_label_column(name, message):
    with pytest.raises(UserError) as caught:
        label_column(table(label=Value("int64"), p=datasets.List(Value("int64"))), "d", name)
    assert str(caught.value) == message


def column(values: list, feature) -> Dataset:
    return Dataset.from_dict({"y": values}, features=Features(y=feature))


@pytest.mark.parametrize(
    "values, feature, labels, names",
    [
        ([2, 0, None, -1], ClassLabel(names=["a", "b", "c"]), [2, 0, -1, -1], ["a", "b", "c"]),
        ([7, None, 3], Value("int32"), [7, -1, 3], None),
        ([1.0, float("nan"), None, 0.0], Value("float64"), [1, -1, -1, 0], None),
        ([True, False], Value("bool"), [1, 0], None),
        (["b", "a", None, "", "b"], Value("string"), [1, 0, -1, -1, 1], ["a", "b"]),
    ],
)
def test_labels(values, feature, labels, names):
    array, found = read_labels(column(values, feature), "y", "d")
    assert array.dtype == np.int64
    assert (array.tolist(), found) == (labels, names)


@pytest.mark.parametrize("values, feature", [([-1, None], Value("int64")), ([None, ""], Value("string"))])
def test_no_row_with_a_label_is_no_labels(values, feature):
    assert read_labels(column(values, feature), "y", "d") == (None, None)


def test_strings_are_numbered_alike_in_every_split():
    train, test = (column(values, Value("string")) for values in (["a", "b", "c"], ["c"]))
    assert read_labels(train, "y", "d", [test])[0].tolist() == [0, 1, 2]
    assert read_labels(test, "y", "d", [train])[0].tolist() == [2]


def test_floats_that_are_no_classes_are_left_out_unless_they_were_asked_for(caplog):
    scores = column([0.5, 1.0], Value("float32"))
    assert read_labels(scores, "y", "d") == (None, None)
    assert 'd: the column "y" is left out' in caplog.text
    with pytest.raises(UserError, match='label column "y" holds no whole numbers'):
        read_labels(scores, "y", "d", name_given=True)


def test_labels_follow_a_selection_of_rows():
    chosen = column([5, 6, 7], Value("int64")).select([2, 0])
    assert read_labels(chosen, "y", "d")[0].tolist() == [7, 5]


def test_a_label_below_minus_one_names_its_row():
    with pytest.raises(UserError, match=r'd: label column "y" has -2 in row 1; labels start at 0'):
        read_labels(column([0, -2], Value("int8")), "y", "d")


def test_list_features_are_not_images():
    with pytest.raises(UserError, match="no column holds images"):
        image_column(table(image=datasets.Sequence(Value("uint8"))), "d")
