"""Every measure against scikit-learn, SciPy or plain enumeration, with ties and at the edges; p against its promise."""

import itertools
import time

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from vissl_zoo.evaluation import measures
from vissl_zoo.evaluation.measures import (
    aurc,
    auroc_with_p,
    excess_aurc,
    resampled_aurocs,
    risk_coverage,
    slope_p,
)


def case(count, seed, levels=None, signal=0.0):
    """A score (count,), of so many distinct values if `levels`, and answers (count,) of both kinds."""
    rng = np.random.default_rng(seed)
    correct = rng.random(count) < 0.6
    correct[:2] = True, False
    score = rng.standard_normal(count) + signal * correct
    return (score if levels is None else np.floor(score * levels)), correct


CASES = {
    "no ties": case(60, 0),
    "ties": case(60, 1, levels=2),
    "heavy ties": case(90, 2, levels=1),
    "all tied": (np.zeros(9), np.arange(9) < 5),
    "two images": (np.array([0.0, 1.0]), np.array([False, True])),
    "perfect": (np.arange(8.0), np.arange(8) > 2),
    "worst": (-np.arange(8.0), np.arange(8) > 2),
    "float32": (np.linspace(850, 850.01, 50).astype(np.float32), np.arange(50) % 3 > 0),
}
each_case = pytest.mark.parametrize("score, correct", CASES.values(), ids=CASES)


@each_case
def test_auroc_is_that_of_scikit_learn(score, correct):
    found = auroc_with_p(score, correct, shuffles=20, resamples=50)
    assert found.value == pytest.approx(roc_auc_score(correct, score), abs=1e-12)
    assert 0 <= found.ci_low <= found.ci_high <= 1


@pytest.mark.parametrize("correct", [[True], [False], [True] * 7, [False] * 7])
def test_auroc_is_undefined_of_one_kind(correct):
    assert auroc_with_p(np.arange(len(correct)), np.array(correct)) is None


@each_case
def test_bootstrapped_aurocs_are_those_of_the_drawn_images(score, correct, monkeypatch):
    drawn = []
    real = measures.bootstrap
    monkeypatch.setattr(
        measures,
        "bootstrap",
        lambda data, statistic, **o: real(data, lambda i, axis: drawn.extend(i) or statistic(i, axis), **o),
    )
    found = resampled_aurocs(score, correct, 30, seed=3)
    order = np.argsort(score, kind="stable")  # it draws places in the sorted order
    expected = [
        roc_auc_score(correct[i], score[i]) if 0 < correct[i].sum() < len(i) else np.nan
        for i in (order[places] for places in drawn if np.ndim(places))
    ]
    assert found == pytest.approx(expected[-30:], abs=1e-12, nan_ok=True)


def test_the_interval_covers_the_truth():
    """Of normal scores a standard deviation apart the AUROC is Φ(1/√2) = .7602; 95% of intervals hold it."""
    held = 0
    for seed in range(200):
        found = auroc_with_p(*case(200, seed, signal=1.0), shuffles=1, resamples=200)
        held += found.ci_low <= 0.7602 <= found.ci_high
    assert 0.90 <= held / 200 <= 0.985


@pytest.mark.parametrize("levels", [None, 20], ids=["no ties", "ties"])
def test_p_is_uniform_where_there_is_nothing_to_find(levels):
    areas, slopes = [], []
    for seed in range(400):
        score, correct = case(80, seed, levels)
        areas.append(auroc_with_p(score, correct, shuffles=199, resamples=1, seed=seed).p_value)
        slopes.append(slope_p(score, correct, shuffles=199, seed=seed))
    for p_values in (areas, slopes):
        assert kstest(p_values, "uniform").pvalue > 0.005
        assert min(p_values) >= 1 / 200


def test_p_is_small_of_an_informative_score_and_large_of_a_misleading_one():
    score, correct = case(300, 0, signal=0.7)
    assert auroc_with_p(score, correct).p_value < 0.01
    assert slope_p(score, correct) < 0.01
    assert auroc_with_p(-score, correct).p_value > 0.99
    assert slope_p(-score, correct) > 0.99


@pytest.mark.parametrize(
    "score",
    [np.arange(7.0), np.array([0, 0, 1, 1, 1, 2, 2.0]), np.zeros(7)],
    ids=["no ties", "ties", "constant"],
)
def test_p_is_the_share_of_all_arrangements(score):
    """With seven images every arrangement can be counted; the slope's are fitted one by one."""
    correct = np.array([0, 0, 1, 0, 1, 1, 1], bool)

    def slope(answers):
        weak = LogisticRegression(C=0.5, tol=1e-12, solver="newton-cholesky")  # finite also without overlap
        return weak.fit(score[:, None], answers).coef_[0, 0]

    arrangements = [np.isin(np.arange(7), chosen) for chosen in itertools.combinations(range(7), 4)]
    for measure, found in (
        (
            lambda answers: roc_auc_score(answers, score),
            auroc_with_p(score, correct, shuffles=20_000).p_value,
        ),
        (slope, slope_p(score, correct, shuffles=20_000)),
    ):
        exact = np.mean([measure(answers) >= measure(correct) - 1e-9 for answers in arrangements])
        assert found == pytest.approx(exact, abs=0.015)


def test_ten_thousand_images_and_a_thousand_shuffles_take_seconds():
    score, correct = case(10_000, 0, signal=0.1)
    start = time.process_time()
    auroc_with_p(score, correct)
    assert time.process_time() - start < 10


def by_all_orders(score, correct):
    """Risk at each coverage, the mean over every order that the score allows."""
    curves = []
    for order in itertools.permutations(range(len(score))):
        ordered = score[list(order)]
        if (np.diff(ordered) <= 0).all():
            wrong = ~correct[list(order)]
            curves.append(np.cumsum(wrong) / np.arange(1, len(wrong) + 1))
    return np.mean(curves, axis=0)


@pytest.mark.parametrize(
    "score",
    [[3, 1, 2, 5, 4, 0], [1, 1, 2, 2, 2, 0], [7, 7, 7, 7, 7, 7], [0, 0, 0, 1, 1, 1], [1, 2, 2, 3, 3, 3]],
    ids=str,
)
@pytest.mark.parametrize("correct", ["101101", "000111", "111111", "000000", "010000"])
def test_risk_and_coverage_are_the_mean_over_all_orders(score, correct):
    score, correct = np.array(score, float), np.array([c == "1" for c in correct])
    curve = risk_coverage(score, correct)
    expected = by_all_orders(score, correct)
    assert curve.risk == pytest.approx(expected, abs=1e-12)
    assert curve.coverage == pytest.approx(np.arange(1, 7) / 6)
    assert aurc(score, correct) == pytest.approx(expected.mean(), abs=1e-12)
    best = by_all_orders(correct.astype(float), correct).mean()
    assert excess_aurc(score, correct) == pytest.approx(expected.mean() - best, abs=1e-12)


@pytest.mark.parametrize("correct, expected", [(True, 0.0), (False, 1.0)])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_aurc_of_one_kind_needs_no_score(correct, expected, count):
    answers = np.full(count, correct)
    assert aurc(np.random.default_rng(0).standard_normal(count), answers) == expected
    assert excess_aurc(np.arange(count), answers) == 0


def test_aurc_at_its_ends():
    correct = np.array([True, True, False, False])
    assert excess_aurc(np.array([4.0, 3, 2, 1]), correct) == pytest.approx(0, abs=1e-15)
    assert aurc(np.ones(4), correct) == pytest.approx(0.5)  # the error rate
    assert aurc(np.array([1.0, 2, 3, 4]), correct) == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize("measure", [auroc_with_p, risk_coverage, aurc, slope_p])
@pytest.mark.parametrize(
    "score, correct, said",
    [
        ([1.0, 2.0], [True], "must be"),
        ([], [], "must be"),
        ([np.nan, 1.0], [True, False], "not finite"),
        ([np.inf, 1.0], [True, False], "not finite"),
    ],
)
def test_bad_arguments(measure, score, correct, said):
    with pytest.raises(ValueError, match=said):
        measure(np.array(score), np.array(correct, bool))
