"""Which columns of a data set hold the image and the label, and the labels as numbers."""

from collections.abc import Iterable
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image, Value

from vissl_zoo.data.files import say_once
from vissl_zoo.errors import UserError

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "bytes")
_LABEL_NAMES = ("label", "labels", "fine_label")
_BINARY, _STRING = ("binary", "large_binary", "binary_view"), ("string", "large_string", "string_view")
_FLOAT = ("float", "double")


def image_columns(features: datasets.Features) -> list[str]:
    """The columns that can hold images, the likeliest first.

    Images are Image features, bytes, structs {bytes, path}, or lists of one of these. Columns called image, img, … come
    first, then Image features, and then the others in their order. Text is taken for paths only under such a name, and
    after all of these.
    """
    encoded = [name for name, feature in features.items() if _holds_image(feature)]
    named = [name for name in _IMAGE_NAMES if name in encoded]
    typed = [name for name in encoded if isinstance(_alone(features[name]), Image)]
    paths = [name for name in _IMAGE_NAMES if name in features and _holds_text(features[name])]
    return list(dict.fromkeys((*named, *typed, *encoded, *paths)))


def image_column(dataset: Dataset, path: str, name: str | None = None) -> str:
    """The column with the images: `name`, or the first of `image_columns`.

    Raises UserError, which lists the columns, when there is none.
    """
    features = dataset.features
    if name is not None:
        _require(features, name, path, "image")
        if not (_holds_image(features[name]) or _holds_text(features[name])):
            raise UserError(
                f'{path}: column "{name}" holds {_kind(features[name])}, not images or their paths'
            )
        return name
    found = image_columns(features)
    if not found:
        raise UserError(f"{path}: no column holds images; the columns are {', '.join(features)}")
    return found[0]


def undecoded(dataset: Any, column: str, feature: Any) -> Any:
    """The data set, a stream too, with the images of a column, of that `feature`, as they are stored."""
    if not isinstance(_alone(feature), Image):
        return dataset
    stored = Image(decode=False)
    return dataset.cast_column(column, stored if isinstance(feature, Image) else datasets.List(stored))


def label_column(dataset: Dataset, path: str, name: str | None = None) -> str | None:
    """The column with the labels: `name`, or a ClassLabel (label, labels, fine_label first), or "label".

    A column "label" that is found, not given, counts only when it holds numbers or strings; a warning says that lists
    are left out. None when there is none; UserError when `name` is not there or of another type.
    """
    features = dataset.features
    if name is not None:
        _require(features, name, path, "label")
        if not _is_class(features[name]):
            what = f"holds {_kind(features[name])}, not integers, class labels or strings"
            raise UserError(f'{path}: label column "{name}" {what}')
        return name
    classes = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    for column in (*_LABEL_NAMES, *classes):
        if column in classes:
            return column
    if "label" not in features or _is_class(features["label"]):
        return "label" if "label" in features else None
    if _kind(features["label"]) != "null":
        what = f"it holds {_kind(features['label'])}, not one class an image"
        say_once(f'{path}: the column "label" is left out: {what}')
    return None


def read_labels(
    dataset: Dataset, column: str, path: str, siblings: Iterable[Dataset] = (), *, name_given: bool = False
) -> tuple[np.ndarray | None, list[str] | None]:
    """(labels int64 (N,), class names or None) of a column; a row with no label (null, "" or -1) is -1.

    (None, None) when no row has one. Strings become their place among the sorted names of this split and of
    its `siblings`, so that a split which lacks a class numbers the others alike; only for strings are these
    asked for. Whole floats are classes, and NaN is no label; a column of other floats is left out with a warning.
    UserError names the row of an integer below -1, or a column with other floats whose name was given.
    """
    labels, names = values(dataset, column), None
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        names = list(feature.names)
    elif feature.dtype in _STRING:
        tables = [labels, *(values(other, column) for other in siblings if column in other.features)]
        names = sorted({name for table in tables for name in table.unique().to_pylist()} - {None, ""})
        labels = pc.call_function("index_in", [labels], pc.SetLookupOptions(pa.array(names, labels.type)))
    elif feature.dtype.startswith(_FLOAT):
        labels = pc.call_function(
            "if_else", [pc.call_function("is_nan", [labels]), pa.scalar(None, labels.type), labels]
        )  # what pandas makes of a missing integer
    try:
        labels = labels.cast(pa.int64()).fill_null(-1).to_numpy()
    except pa.ArrowInvalid as error:
        if name_given:
            raise UserError(f'{path}: label column "{column}" holds no whole numbers') from error
        say_once(f'{path}: the column "{column}" is left out: it holds numbers that are no classes')
        return None, None
    if (wrong := np.flatnonzero(labels < -1)).size:
        row = int(wrong[0])
        raise UserError(f'{path}: label column "{column}" has {labels[row]} in row {row}; labels start at 0')
    return (None, None) if (labels == -1).all() else (labels, names)


def values(dataset: Dataset, column: str) -> pa.ChunkedArray:
    """A column as Arrow holds it."""
    table = cast(pa.Table, dataset.select_columns([column]).with_format("arrow")[:])
    return table.column(column)


def _require(features: datasets.Features, name: str, path: str, what: str) -> None:
    if name not in features:
        raise UserError(f'{path}: no {what} column "{name}"; the columns are {", ".join(features)}')


def _alone(feature: Any) -> Any:
    """The feature of the one item that a list holds, or the feature itself."""
    if isinstance(feature, list):
        return feature[0]
    return feature.feature if isinstance(feature, (datasets.List, datasets.LargeList)) else feature


def _holds_image(feature: object) -> bool:
    feature = _alone(feature)
    if isinstance(feature, dict):  # a struct, as Image stores it
        feature = feature.get("bytes")
    is_binary = isinstance(feature, Value) and feature.dtype.startswith((*_BINARY, "fixed_size_binary"))
    return is_binary or isinstance(feature, Image)


def _holds_text(feature: object) -> bool:
    feature = _alone(feature)
    return isinstance(feature, Value) and feature.dtype in _STRING


def _is_class(feature: object) -> bool:
    is_value = isinstance(feature, Value)
    return isinstance(feature, ClassLabel) or (
        is_value and (feature.dtype in _STRING or feature.dtype.startswith(("int", "uint", "bool", *_FLOAT)))
    )


def _kind(feature: object) -> str:
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__
