"""Transfer (Table 7): the linear evaluation on other data sets, by the embeddings of the same model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from vissl_zoo.data import ImageTable, available_splits
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.linear_classifier import LinearOptions, linear_predictions
from vissl_zoo.inference import open_tables

TITLE = "transfer to other data sets"
NEEDS: set[str] = set()  # it brings its own images

# The paper's Table 7, pre-trained for 100 epochs on ImageNet-100: SimSiam, VI-SimSiam, and names of the data set.
TABLE_7 = {
    (0.148, 0.645): ("flowers", "flowers102", "oxford_flowers102"),
    (0.467, 0.484): ("food", "food101"),
    (0.357, 0.518): ("dtd",),
    (0.104, 0.162): ("aircraft", "fgvc_aircraft"),
    (0.395, 0.464): ("sun397",),
    (0.405, 0.500): ("pet", "pets", "oxford_iiit_pet"),
    (0.085, 0.137): ("cars", "stanford_cars"),
}
PAPER = {
    f"transfer.{name}.top1": f"SimSiam {a:.3f}, VI-SimSiam {b:.3f} (ImageNet-100, 100 epochs)"
    for (a, b), names in TABLE_7.items()
    for name in names
}


@dataclass(frozen=True)
class Options:
    """Which data sets, and how their classifiers are trained."""

    data: tuple[str, ...] = ()
    """Labelled data sets with a training and a test split: Hub names, folders, parquet; none by default."""
    linear: LinearOptions = field(default_factory=LinearOptions)
    """How the classifiers are trained; as in linear evaluation by default."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Top-1 and the chosen learning rate for each data set; nothing if none is named.

    Raises:
        UserError: a data set cannot be opened, has no labels or lacks a split, or two have the same name.
    """
    names = [data_set_name(path) for path in options.data]
    for name, path in zip(names, options.data, strict=True):
        if names.count(name) > 1:
            raise UserError(f"--transfer.data: {path} has the same name as another, {name}")
    tables = [_open(path) for path in options.data]  # all of them first: a misspelled name is told at once
    for name, (train, test) in zip(names, tables, strict=True):
        there = replace(evaluation, train=train, test=test, predictions={}, figures=[], memo={})
        result = linear_predictions(there, options.linear)
        if isinstance(result, Undefined):
            yield f"transfer.{name}.top1", result
            continue
        yield f"transfer.{name}.top1", result.top1
        yield f"transfer.{name}.lr", result.lr


def data_set_name(path: str) -> str:
    """What metrics.json calls a data set: the last part of its path, in lower case, with _ for what is no letter."""
    last = Path(path.rstrip("/")).name
    stem = last.removesuffix(".parquet").lower()
    return "".join(c if c.isalnum() else "_" for c in stem) or "data"


def _open(path: str) -> tuple[ImageTable, ImageTable]:
    train, test = open_tables(path)
    if train is None:
        raise UserError(
            f"--transfer.data {path} needs a split train and one test; it has {', '.join(available_splits(path))}"
        )
    if train.labels is None or test.labels is None:
        raise UserError(f"--transfer.data {path} has no labels")
    return train, test
