"""Collapse by its definitions: all pairs by loops, and spaces whose rank, spread and uniformity are known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.image_views import unit_length
from vissl_zoo.evaluation.protocols import collapse
from vissl_zoo.inference import Embedded
from vissl_zoo.models import Representation


def on_sphere(count, width, seed=0):
    return unit_length(np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32))


def told(rows, embedding, kappa=None, uncertainty=None):
    """What a model is taken to say of images."""
    sizes = np.full((len(rows), 2), 16)
    return Embedded(rows, Representation(embedding, kappa, uncertainty), sizes, [None] * len(rows))


def evaluation_of(embedding, tmp_path):
    evaluation = Evaluation(None, None, None, SimpleNamespace(labels=None), 8, tmp_path)
    evaluation.test_features = told(np.arange(len(embedding)), embedding)
    return evaluation


@pytest.mark.parametrize("count", [2, 3, 600])  # one chunk, and more than one
def test_uniformity_is_over_all_pairs(count):
    points = on_sphere(count, 5)
    expected = np.log(np.exp(-2 * pdist(points.astype(float), "sqeuclidean")).mean())
    assert collapse.uniformity(points) == pytest.approx(expected, abs=1e-5)


def test_uniformity_of_one_point_and_of_a_large_sphere():
    assert collapse.uniformity(np.repeat(on_sphere(1, 7), 20, axis=0)) == pytest.approx(0, abs=1e-5)
    assert collapse.uniformity(on_sphere(500, 400)) == pytest.approx(-4, abs=0.1)


def test_alignment_is_the_mean_squared_distance():
    first, second = on_sphere(30, 6), on_sphere(30, 6, seed=1)
    expected = np.mean([np.sum((a - b) ** 2) for a, b in zip(first, second, strict=True)])
    assert collapse.alignment(first, second) == pytest.approx(expected, rel=1e-6)
    assert collapse.alignment(first, first) == 0
    assert collapse.alignment(first, -first) == pytest.approx(4)


def test_effective_rank_and_spread_of_known_spaces():
    axes = np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)  # four dimensions, each as long
    assert collapse.effective_rank(axes) == pytest.approx(4)
    assert collapse.embedding_std(axes) == pytest.approx(1)
    line = np.array([[1, 0, 0], [-1, 0, 0]] * 5, np.float32)
    assert collapse.effective_rank(line) == pytest.approx(1, abs=1e-6)
    point = np.repeat(on_sphere(1, 9), 50, axis=0)
    assert collapse.effective_rank(point) == 0
    assert collapse.embedding_std(point) == pytest.approx(0, abs=1e-6)
    values = np.linalg.svd(axes[:5] - axes[:5].mean(0), compute_uv=False)
    share = values[values > 1e-6] / values.sum()
    assert collapse.effective_rank(axes[:5]) == pytest.approx(np.prod(share**-share), rel=1e-5)


def test_a_rotation_changes_nothing(tmp_path):
    points = on_sphere(40, 6)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0].astype(np.float32)
    found = []
    for embedding in (points, 3 * points @ turn):
        options = collapse.Options(views=False)
        found.append(dict(collapse.evaluate(evaluation_of(embedding, tmp_path), options)))
    for name in ("effective_rank", "uniformity"):
        assert found[0][f"collapse.{name}"] == pytest.approx(found[1][f"collapse.{name}"], rel=1e-4)


def test_at_most_so_many_images_are_looked_at(tmp_path):
    evaluation = evaluation_of(on_sphere(50, 6), tmp_path)
    some, again = (
        dict(collapse.evaluate(evaluation, collapse.Options(images=20, views=False))) for _ in range(2)
    )
    assert some["collapse.uniformity"] == again["collapse.uniformity"]
    assert some["collapse.uniformity"] != collapse.uniformity(evaluation.test_features.embedding)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_undefined(count, tmp_path):
    evaluation = evaluation_of(on_sphere(count, 6), tmp_path)
    found = dict(collapse.evaluate(evaluation, collapse.Options(views=False)))
    assert all(isinstance(value, Undefined) for value in found.values())
    assert len(found) == 4


def test_embeddings_of_zeros_are_one_point():
    assert collapse.effective_rank(unit_length(np.zeros((5, 3), np.float32))) == 0
