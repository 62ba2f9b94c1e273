"""Correlations against SciPy, with ties and at the edges; p against its promise."""

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr, rankdata, spearmanr

from vissl_zoo.evaluation.correlation import correlation, mean_ranks


def values(count, seed, levels=None):
    """(count,) random values, of so many distinct ones if `levels`."""
    found = np.random.default_rng(seed).standard_normal(count)
    return found if levels is None else np.floor(found * levels)


@pytest.mark.parametrize("seed, levels", [(0, None), (1, 3)])
def test_correlations_are_those_of_scipy(seed, levels):
    x, y = values(70, seed, levels), values(70, seed + 9, levels)
    y = y + 0.3 * x
    pearson, spearman = (correlation(x, y, ranks=r, shuffles=50) for r in (False, True))
    assert pearson.value == pytest.approx(pearsonr(x, y).statistic, abs=1e-12)
    assert spearman.value == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    turned = correlation(-x, y, ranks=True, shuffles=50)
    assert turned.value == pytest.approx(-spearman.value)
    assert turned.p_value == spearman.p_value  # two-sided


def test_perfect_correlation_and_huge_numbers():
    x = np.arange(6.0) * 1e200
    found = correlation(x, x, ranks=False, shuffles=5000)
    assert found.value == pytest.approx(1)
    assert found.p_value == pytest.approx(2 / 720, abs=0.003)  # the order itself and its reverse, of 6!


@pytest.mark.parametrize(
    "x, y", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1], [1]), ([], [])], ids=str
)
@pytest.mark.parametrize("ranks", [True, False])
def test_correlation_is_undefined_of_a_constant(x, y, ranks):
    assert correlation(np.array(x, float), np.array(y, float), ranks=ranks) is None


@pytest.mark.parametrize("levels", [None, 20], ids=["no ties", "ties"])
def test_p_is_uniform_where_there_is_nothing_to_find(levels):
    p_values = [
        correlation(values(80, i, levels), values(80, 10_000 + i), ranks=True, shuffles=199, seed=i).p_value
        for i in range(400)
    ]
    assert kstest(p_values, "uniform").pvalue > 0.005
    assert min(p_values) >= 1 / 200


def test_p_is_small_where_there_is_something():
    x = values(300, 0)
    assert correlation(x, values(300, 1) + 0.3 * x, ranks=False).p_value < 0.01


@pytest.mark.parametrize("levels", [None, 3])
def test_ranks_are_those_of_scipy(levels):
    np.testing.assert_array_equal(mean_ranks(values(50, 0, levels)), rankdata(values(50, 0, levels)))
