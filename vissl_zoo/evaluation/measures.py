"""Measures of a confidence score, with the chance that they are luck: AUROC, risk–coverage, slope.

A score is right by its order alone, so all of it goes through ranks, and ties count as the average over their orders.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, permutation_test, rankdata
from sklearn.metrics import roc_auc_score

from vissl_zoo.evaluation.correlation import centred_unit

SHUFFLES = 1000  # M of App. J
RESAMPLES = 1000
INTERVAL = (0.025, 0.975)
_CELLS = 2_000_000  # shuffled values held at once: 16 MB


class Auroc(NamedTuple):
    """An AUROC, its permutation p (H0: no better than chance) and its bootstrap 95% interval."""

    value: float
    p_value: float
    ci_low: float
    ci_high: float


class RiskCoverage(NamedTuple):
    """Share answered (N,), 1/N … 1, the surest first, and the share of wrong answers (N,) among those."""

    coverage: np.ndarray
    risk: np.ndarray


def auroc_with_p(
    confidence: np.ndarray,
    correct: np.ndarray,
    *,
    shuffles: int = SHUFFLES,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Auroc | None:
    """Chance that of a correct and a wrong answer the correct one has the higher score, ties counting half (§6.3).

    The p is that of App. J, (1 + #{a' >= a}) / (M + 1) over M shuffles of `correct`, or the share of all orders where
    these are no more than M. The interval holds the middle 95% of the AUROCs of `resamples` draws of N images with
    replacement (Efron's percentiles; draws that lack one of the two kinds have no AUROC and are passed over).

    Args:
        confidence: (N,), higher is surer, finite.
        correct: (N,) bool.
        shuffles: M.
        resamples: bootstrap draws.
        seed: of shuffles and draws.

    Returns:
        None where it is undefined: all correct, or all wrong.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """
    confidence, correct = _checked(confidence, correct)
    if correct.all() or not correct.any():
        return None
    value = roc_auc_score(correct, confidence)
    p_value = _p_of_sum(rankdata(confidence), correct, shuffles, seed)
    drawn = resampled_aurocs(confidence, correct, resamples, seed)
    drawn = drawn[np.isfinite(drawn)]
    # Only of a tiny set can no draw at all have both kinds; then nothing narrows the interval.
    low, high = np.quantile(drawn, INTERVAL) if len(drawn) else (0.0, 1.0)
    return Auroc(float(value), p_value, float(low), float(high))


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    """The error among the i surest images, for i = 1 … N (El-Yaniv & Wiener, 2010).

    Images of equal confidence come in no order: the risk is its mean over all of them, which lets the errors of such
    a group grow evenly with each image taken.

    Raises:
        ValueError: the shapes differ, there is no image, or a score is not finite.
    """
    confidence, correct = _checked(confidence, correct)
    order = np.argsort(-confidence, kind="stable")
    _, starts, sizes = np.unique(-confidence[order], return_index=True, return_counts=True)
    errors = np.add.reduceat((~correct[order]).astype(np.float64), starts)
    taken = np.arange(1, len(correct) + 1)
    risk = np.cumsum(np.repeat(errors / sizes, sizes)) / taken
    return RiskCoverage(taken / len(correct), np.clip(risk, 0, 1))


def aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Area under the risk–coverage curve, the mean of its N risks (Geifman et al., 2019); lower is better.

    A score that knows nothing has the error rate; all correct gives 0 and all wrong 1, whatever the score.
    """
    return float(risk_coverage(confidence, correct).risk.mean())


def excess_aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """E-AURC: `aurc` less that of the perfect order, all correct before all wrong (Geifman et al., 2019); 0 is best.

    The perfect order's area is summed. Geifman's approximation of it, r + (1 - r) ln(1 - r) for an error rate r, is off
    for small N.
    """
    correct = np.asarray(correct, dtype=bool)
    return aurc(confidence, correct) - aurc(correct.astype(np.float64), correct)


def slope_p(x: np.ndarray, correct: np.ndarray, *, shuffles: int = SHUFFLES, seed: int = 0) -> float:
    """Permutation p of the slope of the logistic regression of `correct` (N,) bool on x (N,), H0: slope <= 0 (App. J).

    No shuffle is fitted. Shuffling leaves x and the number of correct images as they are. The slope of greatest
    likelihood then increases strictly with Σ x over the correct images, the other sufficient statistic. A permutation
    test looks at the order of the slopes alone, which is the order of those sums.
    """
    x, correct = _checked(x, correct)
    if np.ptp(x) == 0:
        return 1.0  # every shuffle has the same slope
    return _p_of_sum(centred_unit(x), correct, shuffles, seed)


def mean_and_std(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation (of the N, not N - 1) of (N,) values, summed in float64."""
    values = values.astype(np.float64)
    return {"mean": float(values.mean()), "std": float(values.std())}


def _checked(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(correct):
        raise ValueError(f"confidence and correct must be (N,), not {confidence.shape} and {correct.shape}")
    if not np.isfinite(confidence).all():
        raise ValueError("a confidence is not finite")
    return confidence, correct


def _p_of_sum(x: np.ndarray, correct: np.ndarray, shuffles: int, seed: int) -> float:
    """The share of the shuffles of the answers at which the sum of x over the correct ones is at least as large."""
    found = permutation_test(
        (correct.astype(np.float64),),
        lambda shuffled, axis: shuffled @ x,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=shuffles,
        batch=max(1, _CELLS // len(x)),
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def resampled_aurocs(confidence: np.ndarray, correct: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """AUROCs (resamples,) of draws of N images with replacement; NaN where a draw lacks one of the two kinds.

    No draw is sorted: the images are sorted once, and a draw gives each a weight.
    """
    count, order = len(correct), np.argsort(confidence, kind="stable")
    _, starts = np.unique(confidence[order], return_index=True)  # groups of equal confidence, rising
    kind = correct[order]

    def aurocs(drawn: np.ndarray, axis: int) -> np.ndarray:
        rows = drawn.reshape(-1, count)
        cells = rows + count * np.arange(len(rows))[:, None]
        weights = np.bincount(cells.ravel(), minlength=rows.size).reshape(rows.shape).astype(np.float64)
        positives, negatives = (np.add.reduceat(weights * k, starts, axis=1) for k in (kind, ~kind))
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return ((positives * below).sum(axis=1) / pairs).reshape(drawn.shape[:-1])

    with warnings.catch_warnings():  # SciPy's own, of an interval that is not asked for
        warnings.simplefilter("ignore")
        found = bootstrap(
            (np.arange(count),),
            aurocs,
            vectorized=True,
            method="percentile",
            n_resamples=resamples,
            batch=max(1, _CELLS // count),
            rng=np.random.default_rng([seed, 1]),  # not the shuffles' own numbers again
        )
    return found.bootstrap_distribution
