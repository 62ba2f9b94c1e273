"""Rank correlation by its definition, and the scores that need no network by hand."""

import numpy as np
import pytest

from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Undefined
from vissl_zoo.evaluation.protocols.ambiguity import (
    Options,
    edge_density,
    evaluate,
    known_ambiguity,
    spearman,
)


def test_spearman_is_pearson_of_ranks():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal(50), rng.standard_normal(50)
    y += 0.5 * x
    ranks = [np.array([(v < each).sum() for each in v]) for v in (x, y)]
    expected = np.corrcoef(*ranks)[0, 1]
    assert spearman(x, y) == pytest.approx(expected)
    assert spearman(np.exp(x), -y) == pytest.approx(-expected)


@pytest.mark.parametrize(
    "x, y", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1], [1]), ([], [])], ids=str
)
def test_spearman_is_undefined_of_a_constant(x, y):
    assert isinstance(spearman(np.array(x, float), np.array(y, float)), Undefined)


def stripes() -> np.ndarray:
    """(4, 10, 10, 3): plain, a vertical edge of full contrast, the same turned, and one of low contrast."""
    images = np.zeros((4, 10, 10, 3), np.uint8)
    images[0] = 77
    images[1, :, 5:] = 255
    images[2, 5:] = 255
    images[3, :, 5:] = 40
    return images


def test_edge_density_counts_the_two_columns_at_an_edge():
    """A Sobel step of 1 answers with 4 in the columns on both sides: 20 of 100 pixels."""
    assert edge_density(stripes()) == pytest.approx([0, 0.2, 0.2, 0])


def test_scores_of_pixels_and_the_uncertainty_are_ranked_against_the_column(
    shapes_evaluation, write_split, noise, tmp_path
):
    images = noise(16) // np.arange(1, 17, dtype=np.uint8)[:, None, None, None]  # ever flatter
    ambiguity = np.linspace(0, 1, 16, dtype=np.float32)
    table = open_images(write_split(tmp_path / "a" / "test.parquet", images, ambiguity=list(ambiguity)))
    evaluation = shapes_evaluation(test=table, train=None, image_size=16)
    found = dict(evaluate(evaluation, Options()))
    assert found["ambiguity.spearman.pixel_deviation"] < -0.9
    assert found["ambiguity.spearman.edge_density"] < -0.3
    expected = spearman(evaluation.test_features.uncertainty, ambiguity)
    assert found["ambiguity.spearman.kappa"] == pytest.approx(expected)
    assert (tmp_path / "ambiguity.png").stat().st_size > 1000


@pytest.mark.parametrize("values", [["low", "high"], [float("nan"), 0.5], None])
def test_a_column_called_ambiguity_that_is_none(shapes_evaluation, write_split, noise, tmp_path, values):
    columns = {} if values is None else {"ambiguity": values}
    table = open_images(write_split(tmp_path / "a" / "test.parquet", noise(2), **columns))
    assert known_ambiguity(shapes_evaluation(test=table, train=None)) is None
