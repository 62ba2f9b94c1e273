"""Collapse: how much of the space the embeddings fill, and how well two views of an image agree; needs no label.

Alignment and uniformity are those of Wang & Isola, "Understanding contrastive representation learning through alignment
and uniformity on the hypersphere" (2020): both on L2-normalised embeddings, and of both less is better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.special import entr, logsumexp

from vissl_zoo.cli import Within
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.image_views import two_views, unit_length

TITLE = "Collapse"
NEEDS: set[str] = set()
PAPER: dict[str, str] = {}
CHUNK = 512  # images compared with all others at once


@dataclass(frozen=True)
class Options:
    """How much is looked at."""

    images: Annotated[int, Within(2)] = 10_000
    """Most test images that effective rank and uniformity look at, drawn by the seed; uniformity takes all pairs."""
    views: bool = True
    """Measure alignment, which renders and embeds two random views of every test image."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Effective rank and spread of the embeddings, uniformity, and alignment."""
    points = unit_length(evaluation.test_features.embedding)
    if len(points) > options.images:
        drawn = np.random.default_rng(evaluation.seed).permutation(len(points))[: options.images]
        points = points[np.sort(drawn)]
    if len(points) < 2:
        for name in ("effective_rank", "embedding_std", "uniformity"):
            yield f"collapse.{name}", Undefined("there are fewer than two images")
    else:
        yield "collapse.effective_rank", effective_rank(points)
        yield "collapse.dimensions", points.shape[1]
        yield "collapse.embedding_std", embedding_std(points)
        yield "collapse.uniformity", uniformity(points)
    if options.views:
        yield "collapse.alignment", alignment(*two_views(evaluation))
    else:
        yield "collapse.alignment", Undefined("--collapse.no-views left it out")


def effective_rank(points: np.ndarray) -> float:
    """How many dimensions normalised embeddings (N, F) use: exp of the entropy of the singular values of the centred
    matrix (Roy & Vetterli, 2007), as the training's log has it. 1 on a line, at most F; 0 if they are one point.
    """
    values = np.linalg.svd((points - points.mean(axis=0)).astype(np.float64), compute_uv=False)
    # Of one point repeated, rounding alone would leave singular values, and the look of a rank.
    if values.max() <= 1e-6 * np.sqrt(len(points)):
        return 0.0
    return float(np.exp(entr(values / values.sum()).sum()))


def embedding_std(points: np.ndarray) -> float:
    """Deviation of normalised embeddings (N, F), mean over dimensions, times √F (Chen & He, 2021, Fig. 2): about 1 if
    they spread over the sphere, 0 if they are one point.
    """
    return float(points.astype(np.float64).std(axis=0).mean() * np.sqrt(points.shape[1]))


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared distance (α = 2) between normalised embeddings, each (N, F), of two views; 0 to 4."""
    return float(np.square(first - second, dtype=np.float64).sum(axis=1).mean())


def uniformity(points: np.ndarray) -> float:
    """log of the mean of exp(-2 ‖x - y‖²) (t = 2) over all pairs of distinct images of normalised embeddings (N, F); 0
    if they are one point, and for uniform ones near -4 where F is large.
    """
    count, parts = len(points), []
    for start in range(0, count, CHUNK):
        squares = 2 - 2 * (points[start : start + CHUNK] @ points.T)
        own = np.arange(start, min(start + CHUNK, count))
        squares[own - start, own] = np.inf
        parts.append(logsumexp(-2 * np.maximum(squares, 0)))
    return float(logsumexp(parts) - np.log(count * (count - 1)))
