"""Retrieval by loops and by hand, and the crop measure on a small model: the same every time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.protocols import retrieval
from vissl_zoo.inference import Embedded
from vissl_zoo.models import Representation

NO_CROP = retrieval.Options(crop=False)


def told(rows, embedding, kappa=None, uncertainty=None):
    """What a model is taken to say of images."""
    sizes = np.full((len(rows), 2), 16)
    return Embedded(rows, Representation(embedding, kappa, uncertainty), sizes, [None] * len(rows))


def evaluation_of(embedding, labels, kappa, tmp_path):
    """An evaluation whose features are given, so that nothing is decoded."""
    count = len(embedding)
    table = SimpleNamespace(labels=None if labels is None else np.repeat(labels, 2))  # rows are 1, 3, 5, …
    evaluation = Evaluation(None, None, None, table, 8, tmp_path)
    uncertainty = None if kappa is None else 1 / (1 + kappa)
    evaluation.test_features = told(2 * np.arange(count) + 1, embedding, kappa, uncertainty)
    return evaluation


def random_case(count, tmp_path, unlabelled=()):
    rng = np.random.default_rng(count)
    embedding = rng.standard_normal((count, 4)).astype(np.float32)
    labels = rng.integers(0, 3, count)
    labels[list(unlabelled)] = -1
    kappa = rng.integers(1, 20, count).astype(np.float32)  # with ties
    return evaluation_of(embedding, labels, kappa, tmp_path)


@pytest.mark.parametrize("count, unlabelled", [(40, ()), (1100, ()), (40, (0, 7, 39))])
def test_recall_and_r_auroc_by_loops(count, unlabelled, tmp_path):
    evaluation = random_case(count, tmp_path, unlabelled)
    found = dict(retrieval.evaluate(evaluation, NO_CROP))
    features, labels = evaluation.test_features, evaluation.test_labels
    unit = features.embedding.astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    correct, rows = [], []
    places = [i for i in range(count) if labels[i] >= 0]
    for i in places:
        best = max((j for j in places if j != i), key=lambda j: unit[i] @ unit[j])
        correct.append(labels[i] == labels[best])
        rows.append(features.rows[best])
    assert found["retrieval.recall_at_1"] == pytest.approx(np.mean(correct))
    area = roc_auc_score(correct, features.kappa[places])
    assert found["retrieval.r_auroc"]["value"] == pytest.approx(area, abs=1e-9)
    assert np.array_equal(evaluation.predictions["nearest_row"][places], rows)
    assert (np.delete(evaluation.predictions["nearest_row"], places) == -1).all()


def test_an_image_does_not_find_itself_but_its_duplicate():
    embedding = np.array([[1, 0], [0, 1], [1, 0], [0, 2]], np.float32)
    assert retrieval.nearest_other(embedding).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("labels, said", [([0, 0, 0, 0], "correct"), ([0, 1, 2, 3], "wrong")])
def test_r_auroc_of_one_kind_is_undefined(labels, said, tmp_path):
    evaluation = evaluation_of(np.eye(4, dtype=np.float32), np.array(labels), np.arange(4) + 1.0, tmp_path)
    found = dict(retrieval.evaluate(evaluation, NO_CROP))
    assert found["retrieval.recall_at_1"] == float(said == "correct")
    assert said in found["retrieval.r_auroc"].reason


@pytest.mark.parametrize("labels, said", [(None, "no labels"), (np.array([1, -1, -1, -1]), "fewer than two")])
def test_without_labels(labels, said, tmp_path):
    evaluation = evaluation_of(np.eye(4, dtype=np.float32), labels, np.ones(4), tmp_path)
    found = dict(retrieval.evaluate(evaluation, NO_CROP))
    for name in ("recall_at_1", "r_auroc"):
        assert said in found[f"retrieval.{name}"].reason


def test_without_kappa_recall_remains(tmp_path):
    labels = np.array([0, 0, 1, 1])
    found = dict(
        retrieval.evaluate(evaluation_of(np.eye(4, dtype=np.float32), labels, None, tmp_path), NO_CROP)
    )
    assert isinstance(found["retrieval.recall_at_1"], float)
    assert isinstance(found["retrieval.r_auroc"], Undefined)
    assert isinstance(found["retrieval.crop"], Undefined)


def test_a_tie_is_half():
    assert retrieval.share_above(np.array([1.0, 2, 3, 3]), np.array([0.0, 2, 4, 1])) == (1 + 0.5 + 0 + 1) / 4


@pytest.fixture(scope="module")
def evaluate_shapes(shapes_folder, tmp_path_factory):
    """evaluate_shapes(seed): an evaluation of 40 images by an untrained model."""
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16).eval()
    table = open_images(str(shapes_folder), split="test")

    def evaluate_shapes(seed):
        return Evaluation(model, None, None, table, 32, tmp_path_factory.mktemp("out"), seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISSL_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield evaluate_shapes


def test_crops_follow_from_the_seed(evaluate_shapes):
    first, again, other = (evaluate_shapes(seed) for seed in (0, 0, 1))
    shares = [
        dict(retrieval.evaluate(e, retrieval.Options()))["retrieval.crop"] for e in (first, again, other)
    ]
    cropped = [e.predictions["crop_uncertainty"] for e in (first, again, other)]
    assert np.array_equal(cropped[0], cropped[1])
    assert not np.array_equal(cropped[0], cropped[2])
    pairs = zip(cropped[0], first.test_features.uncertainty, strict=True)
    assert shares[0] == np.mean([1 if crop > whole else 0.5 if crop == whole else 0 for crop, whole in pairs])


def test_a_crop_is_a_part_of_the_whole(evaluate_shapes, monkeypatch):
    """Rendered again by cutting pixels out of the central crop: as many as 25 to 75% of its side."""
    evaluation = evaluate_shapes(0)
    drawn = {}
    pipeline_of = retrieval.plain_pipeline

    def spied(*args, **changes):
        drawn["pipeline"] = pipeline_of(*args, **changes)
        return drawn["pipeline"]

    monkeypatch.setattr(retrieval, "plain_pipeline", spied)
    retrieval.crop_uncertainty(evaluation)
    pipeline = drawn["pipeline"]
    boxes = pipeline.boxes(pipeline.draw(40, 0), torch.full((40, 2), 32))[0]
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert 8 <= boxes[:, 2].min() < boxes[:, 2].max() <= 24
    assert len({tuple(b) for b in boxes[:, :2].tolist()}) > 20
    assert (pipeline.flip, pipeline.jitter, pipeline.grayscale, pipeline.blur) == (0, 0, 0, 0)
