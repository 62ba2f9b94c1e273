"""Near-duplicates: images whose embeddings point the same way.

Groups are not connected components: those chain, so that an image is dropped for one that it does not resemble. Here
the images are taken in order, and one is dropped exactly if an image kept before it is as similar as the threshold
says. So no two kept images are that similar, and every dropped one is that similar to the one it is dropped for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vissl_zoo.photos.cosine_index import LEAST_RECALL, PROBES, SAMPLE, build_index, use_index
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


def group_many(
    embeddings: np.ndarray, order: np.ndarray, threshold: float, *, centre: bool = False
) -> tuple[Groups, str]:
    """`find_duplicates`, beyond `EXACT_UP_TO` images by an index; also a sentence on what the index finds, else "".

    Arguments are `find_duplicates`'. Where the index misses more than a hundredth in a sample, it looks further.
    """
    if not use_index(len(order)):
        return find_duplicates(embeddings, order, threshold, centre=centre), ""
    for probes in PROBES:
        groups = find_duplicates(embeddings, order, threshold, centre=centre, probes=probes)
        there, found = recall_of(groups, embeddings, order, threshold, centre=centre)
        if found >= LEAST_RECALL * there:
            break
    said = f"An index was asked: of {min(SAMPLE, len(order)):,} images compared with all, {there:,} repeat another"
    return groups, f"{said}, and it found {found:,} of these."


def find_duplicates(
    embeddings: np.ndarray, order: np.ndarray, threshold: float, *, centre: bool = False, probes: int = 0
) -> Groups:
    """Group N images by the cosine of their embeddings, in blocks: the N × N matrix is never held.

    Args:
        embeddings: (N, F); zeros, which have no direction, repeat none.
        order: (M,) rows, the one to prefer in a group first; the others are not kept, and in no group.
        threshold: the least cosine of a duplicate with the one that is kept, in (0, 1].
        centre: subtract the mean embedding first.
        probes: cells in which an index looks for the kept one that an image resembles; 0 compares it with all.
    """
    count = len(embeddings)
    points = _ordered(embeddings, order, centre)
    keeper = np.full(len(order), -1)  # of the images in order: the place of the kept one it repeats
    best = np.full(len(order), -np.inf, dtype=np.float32)
    # Float32 products of equal vectors miss 1 by some 1e-7.
    limit = np.float32(threshold - 1e-6)
    kept_ones = build_index(points, probes)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        nearest, cosine = kept_ones.nearest(points[block])
        similar = cosine >= limit
        keeper[block[similar]], best[block[similar]] = nearest[similar], cosine[similar]
        fresh = _leaders(points, block[~similar], limit)
        _assign(points, np.setdiff1d(block, fresh), fresh, keeper, best, limit)
        kept_ones.add(fresh)
    return _groups(count, order, keeper, best)


def recall_of(
    groups: Groups, embeddings: np.ndarray, order: np.ndarray, threshold: float, *, centre: bool
) -> tuple[int, int]:
    """Of a sample of images, how many repeat a kept one before them, as exact comparison says, and how many were found.

    Arguments are `find_duplicates`'.
    """
    points = _ordered(embeddings, order, centre)
    place = np.flatnonzero(groups.kept[order])
    sample = np.random.default_rng(0).permutation(len(order))[:SAMPLE]
    repeats = np.zeros(len(sample), dtype=bool)
    for start in range(0, len(place), _CHUNK):
        kept = place[start : start + _CHUNK]
        cosines = points[sample] @ points[kept].T
        repeats |= ((cosines >= threshold + 1e-6) & (kept < sample[:, None])).any(axis=1)
    return int(repeats.sum()), int((repeats & ~groups.kept[order[sample]]).sum())


def _ordered(embeddings: np.ndarray, order: np.ndarray, centre: bool) -> np.ndarray:
    """The directions (M, F) of the images in order."""
    some = embeddings[order]
    return _directions(some, _mean(some, centre))


def _groups(count: int, order: np.ndarray, keeper: np.ndarray, best: np.ndarray) -> Groups:
    """Groups of N images, from the place (M,) in `order` of the kept one that each repeats, or -1, and their cosine."""
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
    embeddings: np.ndarray, reference: np.ndarray, *, centre: bool = False, probes: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar of M other images for each of N: its row and the cosine, (N,) each.

    Args:
        embeddings: (N, F).
        reference: (M, F), M >= 1.
        centre: subtract the mean embedding of the M first.
        probes: see `find_duplicates`.
    """
    mean = reference.mean(axis=0) if centre else None
    points, others = _directions(embeddings, mean), _directions(reference, mean)
    index = build_index(others, probes)
    index.add(np.arange(len(others)))
    row, cosine = np.zeros(len(points), dtype=np.int64), np.zeros(len(points), dtype=np.float32)
    for start in range(0, len(points), _BLOCK):
        own = slice(start, start + _BLOCK)
        row[own], cosine[own] = index.nearest(points[own])
    return row, cosine


def random_cosines(
    embeddings: np.ndarray, pairs: int = 20_000, seed: int = 0, *, centre: bool = False
) -> np.ndarray:
    """Cosines (pairs,) of random pairs of different rows of (M, F), M > 1: what a threshold is to be compared with."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(embeddings), size=pairs)
    second = (first + rng.integers(1, len(embeddings), size=pairs)) % len(embeddings)
    mean = _mean(embeddings, centre)
    return np.einsum("pf,pf->p", _directions(embeddings[first], mean), _directions(embeddings[second], mean))


def _mean(embeddings: np.ndarray, centre: bool) -> np.ndarray | None:
    return embeddings.mean(axis=0) if centre and len(embeddings) else None


def _directions(embeddings: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    return unit_length(embeddings if mean is None else embeddings - mean)
