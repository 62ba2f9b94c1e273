"""Does uncertainty follow an ambiguity that the data know, such as the shapes', and better than plain pixels do?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import correlate1d
from scipy.stats import spearmanr

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.figures import NEUTRAL, UNSURE, new_figure, tidy

TITLE = "known ambiguity"
NEEDS = {"kappa", "ambiguity"}
PAPER: dict[str, str] = {}
COLUMN = "ambiguity"
EDGE_THRESHOLD = 0.25  # of the largest gradient a step from black to white can have


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Spearman of the ambiguity with the uncertainty, and with two scores of the pixels that need no network."""
    features, ambiguity = evaluation.test_features, cast(np.ndarray, known_ambiguity(evaluation))
    crops = [evaluation.crop.crop(evaluation.test.read(int(row))) for row in features.rows]
    images = np.stack(crops)
    scores = {
        "kappa": features.uncertainty,
        "edge_density": edge_density(images),
        "pixel_deviation": images.reshape(len(images), -1).std(axis=1, dtype=np.float32),
    }
    for name, score in scores.items():
        yield f"ambiguity.spearman.{name}", spearman(score, ambiguity)
    evaluation.predictions[COLUMN] = ambiguity
    figure = _draw(features.uncertainty, ambiguity)
    evaluation.save_figure(
        figure, "ambiguity.png", "Uncertainty against the known ambiguity, which no model saw"
    )


def known_ambiguity(evaluation: Evaluation) -> np.ndarray | None:
    """The ambiguity (N,) of the test images, in the order of `test_features`; None where the data have no such column
    of finite numbers.
    """
    values = evaluation.test.column(COLUMN)
    if values is None or not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        return None
    return values[evaluation.test_features.rows]


def spearman(x: np.ndarray, y: np.ndarray) -> float | Undefined:
    """Spearman's rank correlation of two (N,)."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Undefined("one of the two is the same for all images")
    return float(cast(Any, spearmanr(x, y)).statistic)


def edge_density(images: np.ndarray) -> np.ndarray:
    """Share of pixels (N,) on an edge (Sobel) of uint8 images (N, H, W, 3)."""
    grey = images.astype(np.float32).mean(axis=3) / 255
    # Not scipy's own `sobel`: on a stack it smooths along the first axis, too, from one image into the next.
    down, across = (correlate1d(correlate1d(grey, [-1, 0, 1], axis=a), [1, 2, 1], axis=3 - a) for a in (1, 2))
    return (np.hypot(down, across) / 4 > EDGE_THRESHOLD).mean(axis=(1, 2))


def _draw(uncertainty: np.ndarray, ambiguity: np.ndarray) -> Figure:
    """Uncertainty (N,) against the ambiguity (N,), with median and quartiles in ten bins."""
    figure = new_figure(4.5, 2.9)
    axes = figure.subplots()
    axes.scatter(ambiguity, uncertainty, s=4, color=NEUTRAL, alpha=0.25, lw=0)
    edges = np.quantile(ambiguity, np.linspace(0, 1, 11))
    member = np.clip(np.searchsorted(edges, ambiguity, side="right") - 1, 0, 9)
    filled = [b for b in range(10) if (member == b).any()]
    centres = [ambiguity[member == b].mean() for b in filled]
    low, middle, high = np.array([np.quantile(uncertainty[member == b], [0.25, 0.5, 0.75]) for b in filled]).T
    spread = [middle - low, high - middle]
    axes.errorbar(centres, middle, spread, color=UNSURE, marker="o", ms=4, capsize=2, lw=1.2)
    axes.set_xlabel("known ambiguity a(x)", fontsize=9)
    axes.set_ylabel("uncertainty", fontsize=9)
    tidy(axes)
    return figure
