"""Near-duplicates: images whose embeddings point the same way.

Groups are not connected components: those chain, so that an image is dropped for one that it does not resemble. Here
the images are taken in order, and one is dropped exactly if an image kept before it is as similar as the threshold
says. So no two kept images are that similar, and every dropped one is that similar to the one it is dropped for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vissl_zoo.photos.selection import unit_length

_BLOCK, _CHUNK = 1024, 8192


class Groups(NamedTuple):
    """Groups of near-duplicates among N images.

    Attributes:
        group: (N,) int64, the number of an image's group, the largest group 0; -1 for an image that repeats none.
        kept: (N,) bool, True for the one of each group, and for those that were compared and repeat none.
        cosine: (N,) float64 with the kept one of the group (1 for itself); NaN without a group.
    """

    group: np.ndarray
    kept: np.ndarray
    cosine: np.ndarray

    def members(self, number: int) -> np.ndarray:
        """The rows of a group, the kept one first and then the most similar to it."""
        rows = np.flatnonzero(self.group == number)
        return rows[np.lexsort((-self.cosine[rows], ~self.kept[rows]))]


def find_duplicates(
    embeddings: np.ndarray, order: np.ndarray, threshold: float, *, centre: bool = False
) -> Groups:
    """Group N images by the cosine of their embeddings, in blocks: the N × N matrix is never held.

    Args:
        embeddings: (N, F); zeros, which have no direction, repeat none.
        order: (M,) rows, the one to prefer in a group first; the others are not kept, and in no group.
        threshold: the least cosine of a duplicate with the one that is kept, in (0, 1].
        centre: subtract the mean embedding first.
    """
    count = len(embeddings)
    points = _directions(embeddings[order], centre)
    keeper = np.full(len(order), -1)  # of the images in order: the place of the kept one it repeats
    best = np.full(len(order), -np.inf, dtype=np.float32)
    # Float32 products of equal vectors miss 1 by some 1e-7.
    limit = np.float32(threshold - 1e-6)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        leaders = _leaders(points, block[keeper[block] < 0], limit)
        _assign(points, np.setdiff1d(block, leaders), leaders, keeper, best, limit)
        for chunk_start in range(block[-1] + 1, len(order), _CHUNK):
            chunk = np.arange(chunk_start, min(chunk_start + _CHUNK, len(order)))
            _assign(points, chunk, leaders, keeper, best, limit)
    repeats = np.flatnonzero(keeper >= 0)
    kept, cosine = np.isin(np.arange(count), order), np.full(count, np.nan)
    group = np.full(count, -1)
    kept[order[repeats]] = False
    cosine[order[repeats]] = np.minimum(best[repeats], 1)
    leaders, member, sizes = np.unique(keeper[repeats], return_inverse=True, return_counts=True)
    number = np.empty(len(leaders), dtype=np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(
        len(leaders)
    )  # equally large: the more certain first
    group[order[leaders]], cosine[order[leaders]] = number, 1.0
    group[order[repeats]] = number[member]
    return Groups(group, kept, cosine)


def _leaders(points: np.ndarray, rows: np.ndarray, limit: np.float32) -> np.ndarray:
    """Those of `rows`, in order, that no kept one among them resembles."""
    cosines = points[rows] @ points[rows].T
    taken = np.zeros(len(rows), dtype=bool)
    for i in range(len(rows)):
        if not taken[i]:
            taken[i + 1 :] |= cosines[i, i + 1 :] >= limit
    return rows[~taken]


def _assign(
    points: np.ndarray,
    rows: np.ndarray,
    leaders: np.ndarray,
    keeper: np.ndarray,
    best: np.ndarray,
    limit: np.float32,
) -> None:
    """Give each of `rows` the most similar leader before it, if that is similar enough and better than the last."""
    if not len(leaders) or not len(rows):
        return
    cosines = points[rows] @ points[leaders].T
    cosines[leaders >= rows[:, None]] = -np.inf
    nearest = cosines.argmax(axis=1)
    similar = cosines[np.arange(len(rows)), nearest]
    better = (similar >= limit) & (similar > best[rows])
    keeper[rows[better]], best[rows[better]] = leaders[nearest[better]], similar[better]


def nearest_in(
    embeddings: np.ndarray, reference: np.ndarray, *, centre: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar of M other images for each of N: its row and the cosine, (N,) each.

    Args:
        embeddings: (N, F).
        reference: (M, F), M >= 1.
        centre: subtract the mean embedding of the M first.
    """
    mean = reference.mean(axis=0) if centre else 0
    points, others = unit_length(embeddings - mean), unit_length(reference - mean)
    row, cosine = np.zeros(len(points), dtype=np.int64), np.full(len(points), -np.inf, dtype=np.float32)
    for start in range(0, len(points), _BLOCK):
        own = slice(start, start + _BLOCK)
        for first in range(0, len(others), _CHUNK):
            cosines = points[own] @ others[first : first + _CHUNK].T
            best = cosines.argmax(axis=1)
            value = cosines[np.arange(len(best)), best]
            better = value > cosine[own]
            row[own][better], cosine[own][better] = first + best[better], value[better]
    return row, cosine


def random_cosines(
    embeddings: np.ndarray, pairs: int = 20_000, seed: int = 0, *, centre: bool = False
) -> np.ndarray:
    """Cosines (pairs,) of random pairs of different rows of (M, F), M > 1: what a threshold is to be compared with."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(embeddings), size=pairs)
    second = (first + rng.integers(1, len(embeddings), size=pairs)) % len(embeddings)
    points = _directions(embeddings, centre)
    return np.einsum("pf,pf->p", points[first], points[second])


def _directions(embeddings: np.ndarray, centre: bool) -> np.ndarray:
    mean = embeddings.mean(axis=0) if centre and len(embeddings) else 0
    return unit_length(embeddings - mean)
