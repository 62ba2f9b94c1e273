"""Transfer: the linear evaluation of other data sets, and nothing unless asked for."""

import numpy as np
import pytest

from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.linear_classifier import LinearOptions, linear_predictions
from vissl_zoo.evaluation.protocols.transfer import PAPER, Options, data_set_name, evaluate

QUICK = LinearOptions(epochs=3, learning_rates=(1.6, 12.8))


@pytest.fixture
def folder(write_split, noise, tmp_path, monkeypatch):
    """folder(name, labels, splits): a data set of noise with these splits."""
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))

    def folder(name, labels=(0, 1, 2) * 8, splits=("train", "test")):
        for seed, split in enumerate(splits):
            write_split(tmp_path / name / f"{split}.parquet", noise(24, seed), labels)
        return str(tmp_path / name)

    return folder


@pytest.fixture
def evaluation(model, tmp_path):
    """Of images that transfer has no use for."""
    return Evaluation(model, None, None, None, 16, tmp_path, workers=1)


def test_silent_by_default(evaluation):
    assert list(evaluate(evaluation, Options())) == []


@pytest.mark.parametrize(
    "splits", [("train", "test"), ("train", "validation"), ("train", "validation", "test")]
)
def test_it_is_the_linear_evaluation_of_that_data_set(evaluation, folder, splits):
    path = folder("Some.Birds", splits=splits)
    found = dict(evaluate(evaluation, Options((path,), QUICK)))
    test = "test" if "test" in splits else "validation"
    there = Evaluation(
        evaluation.model, None, *(open_images(path, split=s) for s in ("train", test)), 16, None, workers=1
    )
    result = linear_predictions(there, QUICK)
    assert found == {"transfer.some_birds.top1": result.top1, "transfer.some_birds.lr": result.lr}
    assert not evaluation.predictions
    assert not evaluation.memo


def test_several_data_sets_are_kept_apart(evaluation, folder):
    paths = folder("a"), folder("b", labels=np.arange(24) % 2)
    found = dict(evaluate(evaluation, Options(paths, QUICK)))
    assert list(found) == [f"transfer.{name}.{value}" for name in "ab" for value in ("top1", "lr")]


def test_too_few_labels_are_told(evaluation, folder):
    ((name, value),) = evaluate(evaluation, Options((folder("few", [0, 1, 2] + [-1] * 21),), QUICK))
    assert name == "transfer.few.top1"
    assert isinstance(value, Undefined)


@pytest.mark.parametrize(
    "bad, message",
    [
        (dict(name="plain", labels=None), "has no labels"),
        (dict(name="whole", splits=("train",)), "needs a split train and one test; it has train"),
        (dict(name="tests", splits=("test",)), "needs a split train"),
    ],
)
def test_a_data_set_that_cannot_serve_is_named(evaluation, folder, bad, message):
    paths = folder("good"), folder(**bad)
    with pytest.raises(UserError, match=f"{bad['name']} {message}"):
        next(evaluate(evaluation, Options(paths, QUICK)))  # before any classifier is trained


def test_missing_and_equally_named_data_sets(evaluation, folder, tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        list(evaluate(evaluation, Options((str(tmp_path / "nowhere"),), QUICK)))
    with pytest.raises(UserError, match="same name"):
        list(evaluate(evaluation, Options((folder("x/birds"), folder("y/birds")), QUICK)))


@pytest.mark.parametrize(
    "path, name",
    [
        ("org/DTD", "dtd"),
        ("data/oxford-iiit-pet/", "oxford_iiit_pet"),
        ("a.b/c.parquet", "c"),
        ("org/name:v1.0", "name_v1_0"),
    ],
)
def test_names_have_no_dots(path, name):
    assert data_set_name(path) == name


def test_the_papers_table_has_both_methods():
    assert PAPER["transfer.flowers102.top1"] == "SimSiam 0.148, VI-SimSiam 0.645 (ImageNet-100, 100 epochs)"
    assert all(
        f"transfer.{name}.top1" in PAPER for name in ("food101", "dtd", "aircraft", "sun397", "pet", "cars")
    )
