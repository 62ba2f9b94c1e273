"""Two views: the pipeline's own, embedded, the same for the same seed, and made once."""

import numpy as np
import pytest
import torch

from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.two_views import two_views, unit_length
from vissl_zoo.views import ViewPipeline


@pytest.fixture
def evaluate_images(write_split, noise, model, tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    table = open_images(str(write_split(tmp_path / "test.parquet", noise(9))))
    return lambda seed: Evaluation(model, None, None, table, 16, tmp_path, seed=seed)


def test_they_are_the_pipelines_views(evaluate_images, model):
    evaluation = evaluate_images(3)
    batch = next(iter(evaluation.test_store.batches([np.arange(9)])))
    with torch.inference_mode():
        views = [model(v).numpy() for v in ViewPipeline(16, seed=3)(batch.images, batch.sizes, 0)]
    expected = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in views]
    assert two_views(evaluation) == pytest.approx(np.stack(expected), abs=1e-5)
    assert two_views(evaluation) is two_views(evaluation)


def test_they_follow_from_the_seed(evaluate_images):
    first, again, other = (two_views(evaluate_images(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unit_length():
    assert unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]
