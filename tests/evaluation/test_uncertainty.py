"""AUROC and rank correlation by their definitions, and the scores that need no network by hand."""

import itertools

import numpy as np
import pytest

from vissl_zoo.evaluation.uncertainty import auroc, edge_density, pixel_deviation, spearman


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    confidence, correct = rng.integers(0, 12, 60).astype(np.float32), rng.random(60) < 0.6
    pairs = list(itertools.product(confidence[correct], confidence[~correct]))
    expected = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    assert auroc(confidence, correct) == pytest.approx(expected)
    assert auroc(-confidence, correct) == pytest.approx(1 - expected)


@pytest.mark.parametrize("value, expected", [([3, 2, 1, 0], 1.0), ([0, 1, 2, 3], 0.0), ([1, 1, 1, 1], 0.5)])
def test_auroc_at_its_ends(value, expected):
    assert auroc(np.array(value, float), np.array([True, True, False, False])) == expected


@pytest.mark.parametrize("correct", [[True, True], [False, False]])
def test_auroc_is_undefined_without_both_kinds(correct):
    assert auroc(np.array([1.0, 2.0]), np.array(correct)) is None


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
    assert spearman(np.array(x, float), np.array(y, float)) is None


def stripes() -> np.ndarray:
    """(4, 3, 10, 10): plain, a vertical edge of full contrast, the same turned, and one of low contrast."""
    images = np.zeros((4, 3, 10, 10), np.uint8)
    images[0] = 77
    images[1, :, :, 5:] = 255
    images[2, :, 5:] = 255
    images[3, :, :, 5:] = 40
    return images


def test_edge_density_counts_the_two_columns_at_an_edge():
    """A Sobel step of 1 answers with 4 in the columns on both sides: 20 of 100 pixels."""
    assert edge_density(stripes()) == pytest.approx([0, 0.2, 0.2, 0])


def test_pixel_deviation():
    images = stripes()
    assert pixel_deviation(images) == pytest.approx([0, 0.5, 0.5, 20 / 255], abs=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, 5, 7), dtype=np.uint8)
    expected = [np.sqrt(np.mean((i / 255 - np.mean(i / 255)) ** 2)) for i in noise]
    assert pixel_deviation(noise) == pytest.approx(expected, rel=1e-5)
