"""The pictures of an evaluation. Matplotlib draws on files alone; no window is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

SURE, UNSURE, NEUTRAL = "#1b7f79", "#c8553d", "#5b6770"
# Each score has its own colour and dash, so that curves which lie on each other are still told apart.
STYLES = {
    "kappa": ("κ", SURE, "-", 2.2),
    "negative_entropy": ("negative entropy", "#7a4fa3", "-", 1.8),
    "two_view_cosine": ("two-view cosine", "#2f6db3", "--", 1.3),
    "knn_distance": ("similarity to neighbours", "#b8860b", "-.", 1.3),
    "norm": ("embedding norm", NEUTRAL, (0, (1, 1.2)), 1.5),
    "max_probability": ("max probability (knows labels)", UNSURE, (0, (5, 1.5)), 1.2),
}
BINS = 20
FEWEST_IN_BIN = 10  # below that an accuracy is mostly chance, and is not drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, with no window behind it."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def tidy(axes) -> None:
    """No box around the axes, small tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def gallery(
    certain: Sequence[tuple[Image.Image, str]],
    uncertain: Sequence[tuple[Image.Image, str]],
    titles: tuple[str, str],
) -> Figure:
    """The most and the least certain images, each (image, caption), as two blocks of a contact sheet (Fig. 1)."""
    columns = 8
    rows = [-(-len(block) // columns) for block in (certain, uncertain)]
    figure = new_figure(9.2, 1.28 * sum(rows) + 0.9)
    blocks: Any = figure.subfigures(2, 1, height_ratios=[max(1, r) for r in rows])
    for block, images, title, colour, height in zip(
        blocks, (certain, uncertain), titles, (SURE, UNSURE), rows, strict=True
    ):
        block.suptitle(title, color=colour, fontsize=11, fontweight="bold", x=0.01, ha="left")
        grid = np.atleast_2d(block.subplots(max(1, height), columns))
        for axes in grid.flat:
            axes.axis("off")
        for axes, (image, caption) in zip(grid.flat, images, strict=False):
            thumbnail = image.copy()
            thumbnail.thumbnail((224, 224))
            axes.imshow(thumbnail, interpolation="nearest" if max(thumbnail.size) < 100 else "antialiased")
            axes.set_title(caption, fontsize=7, pad=2, color=NEUTRAL)
    return figure


def roc(scores: Mapping[str, np.ndarray], correct: np.ndarray, areas: Mapping[str, float]) -> Figure:
    """ROC of each score (N,) as a test for a correct answer (N,) bool, with its AUROC in the legend."""
    from sklearn.metrics import roc_curve

    figure = new_figure(4.8, 4.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#c9d0d5", lw=1)
    for name, area in areas.items():
        label, colour, dash, width = STYLES[name]
        false, true, _ = roc_curve(correct, scores[name])
        axes.plot(false, true, color=colour, ls=dash, lw=width, label=f"{label}  {area:.3f}")
    axes.set_xlabel("wrong answers kept", fontsize=9)
    axes.set_ylabel("correct answers kept", fontsize=9)
    axes.set_aspect("equal")
    axes.legend(fontsize=7.5, frameon=False, loc="lower right", title="AUROC", title_fontsize=8)
    tidy(axes)
    return figure


def histogram(
    kappa: np.ndarray, correct: np.ndarray | None = None, line: tuple[float, float] | None = None
) -> Figure:
    """κ (N,), of correct and wrong answers (N,) bool stacked, accuracy per bin, and the logistic regression's curve.

    Args:
        kappa: at least one value, all finite.
        correct: which answers are correct; None where nobody knows.
        line: slope and intercept of the logistic regression on κ, or None.
    """
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    kappa = kappa.astype(np.float64)
    varied = np.ptp(kappa) > 1e-5 * np.abs(kappa).max()
    middle = kappa.mean()
    # A collapsed κ is one bar: NumPy cannot cut a range of no width into bins.
    edges = np.linspace(kappa.min(), kappa.max(), BINS + 1) if varied else middle + np.array([-0.5, 0.5])
    axes.set_xlabel("κ", fontsize=9)
    axes.set_ylabel("images", fontsize=9)
    tidy(axes)
    if correct is None:
        axes.hist(kappa, edges, color=SURE, alpha=0.8)
        return figure
    parts, colours = [kappa[correct], kappa[~correct]], [SURE, UNSURE]
    axes.hist(parts, edges, stacked=True, color=colours, alpha=0.45, label=["correct", "wrong"])
    right = axes.twinx()
    count, centres = np.histogram(kappa, edges)[0], (edges[:-1] + edges[1:]) / 2
    filled = count >= min(FEWEST_IN_BIN, count.max())
    accuracy = np.histogram(kappa[correct], edges)[0][filled] / count[filled]
    right.plot(centres[filled], accuracy, color=UNSURE, marker="o", ms=3, lw=1.3, label="accuracy per bin")
    if line is not None:
        x = np.linspace(edges[0], edges[-1], 200)
        curve = 0.5 * (1 + np.tanh((line[0] * x + line[1]) / 2))
        right.plot(x, curve, color="#23292e", ls=":", lw=1.5, label="logistic regression")
    right.set_ylim(0, 1.02)
    right.set_ylabel("accuracy", fontsize=9)
    right.spines["top"].set_visible(False)
    right.tick_params(labelsize=8)
    handles = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, fontsize=7.5, frameon=False, ncols=4, loc="outside upper center")
    return figure


def risk_against_coverage(scores: Mapping[str, np.ndarray], correct: np.ndarray) -> Figure:
    """The error rate among the surest share of the images, by each score (N,); perfect order and chance beside them."""
    from vissl_zoo.evaluation.measures import risk_coverage

    figure = new_figure(5.2, 3.8)
    axes = figure.subplots()
    for name, score in scores.items():
        label, colour, dash, width = STYLES[name]
        curve = risk_coverage(score, correct)
        axes.plot(curve.coverage, curve.risk, color=colour, ls=dash, lw=width, label=label)
    best = risk_coverage(correct.astype(np.float64), correct)
    axes.plot(best.coverage, best.risk, color="#23292e", lw=1, label="perfect order")
    axes.axhline((~correct).mean(), color="#c9d0d5", lw=1, label="no order", zorder=0)
    axes.set_xlabel("coverage: share of images answered, the surest first", fontsize=9)
    axes.set_ylabel("risk: share of them wrong", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(axes)
    return figure
