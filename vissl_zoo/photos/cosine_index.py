"""Which of the images that were added is nearest to another: all of them compared, or faiss's cells.

faiss (Douze et al., 2024) parts the sphere into cells around some 2 √N centres, and looks into the `probes` cells whose
centres are nearest. docs/scale.md has what it was measured against.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np

EXACT_UP_TO = 20_000  # images; comparing all of them takes seconds
PROBES = (8, 32, 128)  # cells that are looked into: first, and where too little was found
LEAST_RECALL = 0.99  # of the duplicates in a sample
SAMPLE = 2_000  # images for which the answer is compared with the exact one
_CHUNK = 8192
_CANDIDATES = 4  # that are compared exactly, since half precision may put a near copy before a copy
_PER_CELL = 40, 64  # images from which a centre is learnt, at least and at most


def use_index(count: int) -> bool:
    """Whether so many images are searched by faiss; says so where that is wanting."""
    if count <= EXACT_UP_TO:
        return False
    if importlib.util.find_spec("faiss") is None:
        print(
            f"{count:,} images are each compared with all, which takes hours for a million: "
            'pip install "vissl_zoo[scale]" has an index',
            file=sys.stderr,
        )
        return False
    return True


class ExactIndex:
    """Compares with all that were added.

    Args:
        points: (N, F) float32 of length 1.
    """

    def __init__(self, points: np.ndarray):
        self._points, self._rows = points, np.zeros(0, dtype=np.int64)

    def add(self, rows: np.ndarray) -> None:
        """Add some of the points, by row."""
        self._rows = np.concatenate([self._rows, rows])

    def nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and cosine, (B,) each, of the nearest that was added to each of (B, F); -1 and -inf if none was."""
        row = np.full(len(queries), -1)
        cosine = np.full(len(queries), -np.inf, dtype=np.float32)
        for start in range(0, len(self._rows), _CHUNK):
            rows = self._rows[start : start + _CHUNK]
            cosines = queries @ self._points[rows].T
            best = cosines.argmax(axis=1)
            value = cosines[np.arange(len(best)), best]
            better = value > cosine
            row[better], cosine[better] = rows[best[better]], value[better]
        return row, cosine


class CellIndex:
    """Compares with those in the nearest cells, in half precision; the cosine of the one found is exact.

    Args:
        points: (N, F) float32 of length 1, from some of which the cells are learnt.
        probes: cells that are looked into.
    """

    def __init__(self, points: np.ndarray, probes: int):
        import faiss

        self._points = points
        fewest, most = _PER_CELL
        cells, dim = max(1, min(round(2 * len(points) ** 0.5), len(points) // fewest)), points.shape[1]
        inner, half = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_fp16
        self._centres = faiss.IndexFlatIP(dim)  # the index does not keep it alive
        self._index: Any = faiss.IndexIVFScalarQuantizer(self._centres, dim, cells, half, inner)
        self._index.nprobe = min(probes, cells)
        some = np.random.default_rng(0).permutation(len(points))[: most * cells]
        self._index.train(points[np.sort(some)])

    def add(self, rows: np.ndarray) -> None:
        """Add some of the points, by row."""
        if len(rows):
            self._index.add_with_ids(self._points[rows], rows)

    def nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and cosine, (B,) each, of the nearest that was found to each of (B, F); -1 and -inf if none was."""
        rows = self._index.search(queries, _CANDIDATES)[1]
        cosines = np.einsum("bf,bkf->bk", queries, self._points[rows])
        cosines = np.where(rows >= 0, cosines, -np.inf).astype(np.float32)
        best = cosines.argmax(axis=1)[:, None]
        return np.take_along_axis(rows, best, 1)[:, 0], np.take_along_axis(cosines, best, 1)[:, 0]

    def cosines(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Cosines (B, k) with the k nearest that were found, the nearest first, in half precision; -1 for none."""
        return self._index.search(queries, k)[0].clip(-1, 1)


def build_index(points: np.ndarray, probes: int) -> ExactIndex | CellIndex:
    """An index, empty yet, of points (N, F) of length 1: exact without probes."""
    return CellIndex(points, probes) if probes else ExactIndex(points)
