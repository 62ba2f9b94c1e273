"""Pearson's and Spearman's correlation, with the chance that it is luck; by numpy alone, which is loaded at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_CELLS = 2_000_000  # shuffled values held at once: 16 MB


class Correlation(NamedTuple):
    """A signed correlation coefficient and its two-sided permutation p."""

    value: float
    p_value: float


def correlation(
    x: np.ndarray, y: np.ndarray, *, ranks: bool, shuffles: int = 1000, seed: int = 0
) -> Correlation | None:
    """Pearson's correlation of two (N,), or Spearman's with `ranks`, and the share of shuffles at least as far from 0.

    Returns:
        None where it is undefined: one of them is constant, or has fewer than two values.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = (centred_unit(mean_ranks(v) if ranks else v) for v in (x, y))
    value = float(np.clip(x @ y, -1, 1))
    rng, step, found = np.random.default_rng(seed), max(1, _CELLS // len(y)), 0
    for start in range(0, shuffles, step):
        shuffled = rng.permuted(np.tile(y, (min(step, shuffles - start), 1)), axis=1)
        # The same pairing summed in another order differs in the last bits, and must still count.
        found += int(np.count_nonzero(np.abs(shuffled @ x) >= abs(value) - 1e-12))
    return Correlation(value, (1 + found) / (shuffles + 1))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each of N values, 1 to N; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def centred_unit(values: np.ndarray) -> np.ndarray:
    """Centred, and of length one. By the largest value first: the square of a huge one would overflow."""
    centred = values - values.mean()
    centred = centred / np.abs(centred).max()
    return centred / np.linalg.norm(centred)
