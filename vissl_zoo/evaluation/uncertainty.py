"""Does κ know? AUROC for correctness, rank correlation with a known ambiguity, and two scores that need no network."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

EDGE_THRESHOLD = 0.25  # of the largest gradient a step from black to white can have


def auroc(confidence: np.ndarray, correct: np.ndarray) -> float | None:
    """Chance that a correctly classified image has the higher confidence of a pair (§6.3).

    Args:
        confidence: (N,), higher is surer: κ, or minus an uncertainty.
        correct: (N,) bool.

    Returns:
        A fraction, or None where it is undefined: all correct, or all wrong.
    """
    if correct.all() or not correct.any():
        return None
    return float(roc_auc_score(correct, confidence))


def spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's rank correlation of two (N,), or None where one of them is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y).statistic)


def edge_density(images: np.ndarray) -> np.ndarray:
    """Share of pixels (N,) on an edge (Sobel) of uint8 images (N, 3, H, W): a score that needs no network."""
    grey = images.astype(np.float32).mean(axis=1) / 255
    # Not scipy's own `sobel`: on a stack it smooths along the first axis, too, from one image into the next.
    down, across = (_smooth(correlate1d(grey, [-1, 0, 1], axis=a), axis=3 - a) for a in (1, 2))
    return (np.hypot(down, across) / 4 > EDGE_THRESHOLD).mean(axis=(1, 2))


def pixel_deviation(images: np.ndarray) -> np.ndarray:
    """Standard deviation (N,) of the pixels of uint8 images (N, 3, H, W): a score that needs no network."""
    return images.reshape(len(images), -1).astype(np.float32).std(axis=1) / 255


def _smooth(images: np.ndarray, axis: int) -> np.ndarray:
    return correlate1d(images, [1, 2, 1], axis=axis)
