"""Test-time choice: what each choice takes, and the classifiers, which are those of their own protocols."""

import numpy as np
import pytest

from vissl_zoo.evaluation.context import Undefined
from vissl_zoo.evaluation.linear_classifier import LinearOptions, linear_predictions
from vissl_zoo.evaluation.neighbours import knn
from vissl_zoo.evaluation.protocols import test_time
from vissl_zoo.evaluation.protocols.test_time import (
    CHOICES,
    PAPER,
    Options,
    choose_crops,
    classify_by_knn,
    classify_linearly,
    combine,
    evaluate,
    over_repeats,
)

SMALL = Options(images=20, crops=3, repeats=2)


def test_combinations_by_loops():
    rng = np.random.default_rng(0)
    embedding, kappa = rng.normal(size=(4, 3, 5)), rng.uniform(1, 9, size=(4, 3))
    kappa[:, 2] = 2.0  # a tie: the first crop is taken
    found = combine(embedding, kappa)
    assert tuple(found) == CHOICES
    for i in range(3):
        unit = embedding[:, i] / np.linalg.norm(embedding[:, i], axis=1, keepdims=True)
        total = sum(k * u for k, u in zip(kappa[:, i], unit, strict=True))
        length = np.mean([np.linalg.norm(e) for e in embedding[:, i]])
        np.testing.assert_allclose(found["one_crop"][i], embedding[0, i])
        np.testing.assert_allclose(found["highest_kappa"][i], embedding[int(np.argmax(kappa[:, i])), i])
        np.testing.assert_allclose(found["mean_embedding"][i], sum(embedding[:, i]) / 4)
        np.testing.assert_allclose(found["kappa_weighted"][i], total / kappa[:, i].sum() * length)


def test_one_crop_leaves_nothing_to_choose(shapes_evaluation):
    evaluation = shapes_evaluation()
    embeddings, kappa = choose_crops(evaluation, Options(crops=1), np.arange(10), 0)
    for name in CHOICES[:3]:
        assert np.array_equal(embeddings[name], embeddings["one_crop"])
    np.testing.assert_allclose(embeddings["kappa_weighted"], embeddings["one_crop"], rtol=1e-4, atol=1e-6)
    assert kappa["one_crop"] == kappa["highest_kappa"]


def test_more_crops_have_a_higher_best_kappa(shapes_evaluation):
    found = {
        crops: choose_crops(shapes_evaluation(), Options(crops=crops), np.arange(10), 0)[1]
        for crops in (2, 12)
    }
    assert found[2]["one_crop"] <= found[2]["highest_kappa"] < found[12]["highest_kappa"]


def test_classifiers_are_those_of_their_protocols(shapes_evaluation):
    evaluation = shapes_evaluation()
    linear_predictions(evaluation, LinearOptions(epochs=60, batch_size=32, learning_rates=(50.0,)))
    queries = evaluation.test_features.embedding
    bank, labels = evaluation.train_features.embedding, evaluation.train_labels
    expected = knn(bank, labels, queries, evaluation.test_labels, seed=evaluation.seed).predictions
    assert np.array_equal(classify_by_knn(evaluation, queries), expected)
    expected = evaluation.memo["linear"].predictions
    assert np.array_equal(classify_linearly(evaluation, queries), expected)
    assert len(set(expected)) > 1


def test_names_and_numbers(shapes_evaluation, tmp_path):
    evaluation = shapes_evaluation()
    evaluation.test.labels = np.where(
        np.arange(40) < 3, -1, evaluation.test.labels
    )  # the first are not asked for
    linear_predictions(evaluation, LinearOptions(epochs=3, batch_size=32))
    found = dict(evaluate(evaluation, SMALL))
    assert found["test_time.images"] == 20
    for classifier in ("knn", "linear"):
        result = found[f"test_time.{classifier}"]
        assert tuple(result) == ("clean", *CHOICES)
        assert 0 <= result["clean"] <= 1
        assert all(0 <= result[name]["mean"] <= 1 and result[name]["std"] >= 0 for name in CHOICES)
    assert found["test_time.kappa.one_crop"]["mean"] <= found["test_time.kappa.highest_kappa"]["mean"]
    assert (tmp_path / "test_time.png").stat().st_size > 1000
    nested = {f"test_time.linear.{n}.{m}" for n in CHOICES for m in ("mean", "std")}
    nested |= {"test_time.linear.clean", "test_time.kappa.clean"}
    nested |= {f"test_time.kappa.highest_kappa.{m}" for m in ("mean", "std")}
    assert set(PAPER) <= nested


def test_top1_is_counted_over_the_asked_images(shapes_evaluation, monkeypatch):
    """A classifier that is right for the clean crops alone, and for one image of each choice."""
    evaluation = shapes_evaluation()
    labels = evaluation.test_labels

    def classify(evaluation, queries):
        asked = len(queries) // len(labels)
        predictions = np.full((asked, len(labels)), -5)
        predictions[0] = labels
        predictions[1:, 0] = labels[0]
        return predictions.ravel()

    monkeypatch.setattr(test_time, "classify_by_knn", classify)
    monkeypatch.setattr(test_time, "classify_linearly", lambda *_: Undefined("left out"))
    found = dict(evaluate(evaluation, Options(images=1000, crops=1, repeats=2)))
    assert found["test_time.knn"]["clean"] == 1
    assert all(found["test_time.knn"][name] == {"mean": pytest.approx(1 / 40), "std": 0} for name in CHOICES)
    assert found["test_time.linear"] == Undefined("left out")


def test_mean_and_deviation():
    values = np.array([1.0, 2.0, 6.0])
    assert over_repeats(values) == {"mean": 3.0, "std": pytest.approx(np.sqrt(7))}
    assert over_repeats(values[:1]) == {"mean": 1.0, "std": Undefined("there is only one repeat")}


@pytest.mark.parametrize("split", ["train", "test"])
def test_too_few_labels_are_said(shapes_evaluation, split):
    evaluation = shapes_evaluation()
    table = getattr(evaluation, split)
    table.labels = np.full(len(table), -1)
    ((name, value),) = evaluate(evaluation, SMALL)
    assert name == "test_time.knn"
    assert isinstance(value, Undefined)
