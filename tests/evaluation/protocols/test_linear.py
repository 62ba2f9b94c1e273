"""The linear protocol on images whose class is their colour."""

import numpy as np
import pytest

from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.evaluation.protocols.linear import Options, evaluate

COLOURS = np.array([[220, 40, 40], [40, 200, 40], [40, 40, 220]])


@pytest.fixture
def coloured(write_split, model, tmp_path, monkeypatch):
    """coloured(train_labels, test_labels): an evaluation on noisy images in the colour of their class."""
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))

    def images(labels, seed):
        noise = np.random.default_rng(seed).integers(-30, 31, (len(labels), 16, 16, 3))
        return (COLOURS[np.maximum(labels, 0)][:, None, None] + noise).astype(np.uint8)

    def coloured(train, test):
        tables = [
            open_images(write_split(tmp_path / f"{name}.parquet", images(np.array(labels), seed), labels))
            for seed, (name, labels) in enumerate([("a", train), ("b", test)])
        ]
        return Evaluation(model, None, *tables, 16, tmp_path, workers=1)

    return coloured


@pytest.mark.parametrize("augment", [False, True])
def test_colours_are_told_apart(coloured, augment):
    evaluation = coloured([0, 1, 2] * 20, [2, 1, 0, -1] * 5)
    options = Options(epochs=60, batch_size=10, learning_rates=(6.4, 25.6), augment=augment)
    found = dict(evaluate(evaluation, options))
    assert found.keys() == {"linear.top1", "linear.top5", "linear.lr"}
    assert found["linear.top1"] == 1
    assert found["linear.lr"] in options.learning_rates
    assert isinstance(found["linear.top5"], Undefined)
    predictions = evaluation.predictions["linear_pred"].reshape(5, 4)
    assert (predictions[:, :3] == [2, 1, 0]).all()
    result = evaluation.memo["linear"]
    assert np.array_equal(result.predictions, predictions.ravel())
    assert ((result.max_probability > 1 / 3) & (result.max_probability <= 1)).all()


def test_augmentation_changes_the_classifier_and_nothing_else(coloured):
    """The rate is chosen on cached features either way; the model stays as it was."""
    evaluation = coloured([0, 1, 2] * 10, [0, 1, 2])
    before = {k: v.clone() for k, v in evaluation.model.state_dict().items()}
    plain, augmented = (
        (dict(evaluate(evaluation, Options(epochs=3, augment=a))), evaluation.memo["linear"])
        for a in (False, True)
    )
    assert plain[0]["linear.lr"] == augmented[0]["linear.lr"]
    assert not np.allclose(plain[1].max_probability, augmented[1].max_probability, atol=1e-6)
    assert all((before[k] == v).all() for k, v in evaluation.model.state_dict().items())


def test_too_few_labels_are_told(coloured):
    evaluation = coloured([0, 1, 2, 0, -1, -1, -1], [0, 1])
    ((name, value),) = evaluate(evaluation, Options(epochs=1))
    assert name == "linear.top1"
    assert "5 labelled" in value.reason
    assert not evaluation.predictions


def test_it_is_found():
    assert PROTOCOLS["linear"].evaluate is evaluate
