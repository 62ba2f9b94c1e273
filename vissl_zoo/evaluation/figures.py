"""The pictures of a report. Matplotlib draws on files alone; no window is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

SURE, UNSURE, NEUTRAL = "#1b7f79", "#c8553d", "#5b6770"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, with no window behind it."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure


def tidy(axes) -> None:
    """No box around the axes, small tick labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def short_number(value: float) -> str:
    """κ and its like as a caption under a small picture: four digits, and no exponent where it is large."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def gallery(
    certain: Sequence[tuple[Image.Image, str]],
    uncertain: Sequence[tuple[Image.Image, str]],
    path: Path,
    titles: tuple[str, str] = ("most certain: highest κ", "least certain: lowest κ"),
) -> None:
    """The most and the least certain images, each (image, caption), as two blocks of a contact sheet (Fig. 1)."""
    columns = 8
    rows = [-(-len(block) // columns) for block in (certain, uncertain)]
    figure = new_figure(9.2, 1.28 * sum(rows) + 0.9)
    blocks = figure.subfigures(2, 1, height_ratios=[max(1, r) for r in rows])
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
    figure.savefig(path)


def curves(history: list[dict[str, Any]], path: Path) -> None:
    """Loss and its terms, κ, and the signs of collapse against the step."""
    terms = [k for k in ("loss", "alignment", "uniformity", "kl", "kappa_fit") if k in history[0]]
    shares = [
        k for k in ("embedding_std", "cosine", "teacher_entropy", "prototype_entropy") if k in history[0]
    ]
    steps = [line["step"] for line in history]
    figure = new_figure(9.2, 4.8)
    (loss, kappa), (collapse, rank) = figure.subplots(2, 2)
    for name in terms:
        loss.plot(steps, [line[name] for line in history], label=name, lw=1.2)
    loss.set_title("loss and its terms", fontsize=9)
    loss.legend(fontsize=7, frameon=False)
    mean = np.array([line["kappa_mean"] for line in history])
    spread = np.array([line["kappa_std"] for line in history])
    kappa.plot(steps, mean, color=SURE, lw=1.2)
    kappa.fill_between(steps, np.maximum(mean - spread, 0), mean + spread, color=SURE, alpha=0.2, lw=0)
    kappa.set_title("κ, mean ± deviation", fontsize=9)
    for name in shares:
        collapse.plot(steps, [line[name] for line in history], label=name.replace("_", " "), lw=1.2)
    collapse.set_title("spread of the embedding, cosine, entropies", fontsize=9)
    collapse.legend(fontsize=7, frameon=False)
    rank.plot(steps, [line["effective_rank"] for line in history], color=NEUTRAL, lw=1.2)
    rank.set_title("effective rank of the embedding", fontsize=9)
    rank.set_ylim(bottom=0)
    for axes in (loss, kappa, collapse, rank):
        axes.set_xlabel("step", fontsize=8)
        tidy(axes)
    figure.savefig(path)


def kappa_histogram(kappa: np.ndarray, correct: np.ndarray | None, path: Path) -> None:
    """Histogram of κ (N,), apart for images that kNN classifies correctly (N,) bool and wrongly (Fig. 9)."""
    figure = new_figure(4.5, 2.9)
    axes = figure.subplots()
    finite = np.isfinite(kappa)
    kappa = kappa[finite].astype(np.float64)
    correct = None if correct is None else correct[finite]
    varied = len(kappa) and np.ptp(kappa) > 1e-5 * np.abs(kappa).max()
    bins = np.histogram_bin_edges(kappa, bins=40) if varied else 1  # a collapsed κ is one bar
    if correct is None:
        axes.hist(kappa, bins, color=SURE, alpha=0.8)
    else:
        axes.hist(kappa[correct], bins, color=SURE, alpha=0.65, label="kNN correct")
        axes.hist(kappa[~correct], bins, color=UNSURE, alpha=0.65, label="kNN wrong")
        axes.legend(fontsize=8, frameon=False)
    axes.set_xlabel("κ", fontsize=9)
    axes.set_ylabel("images", fontsize=9)
    tidy(axes)
    figure.savefig(path)


def uncertainty_by_ambiguity(uncertainty: np.ndarray, ambiguity: np.ndarray, path: Path) -> None:
    """Uncertainty (N,) against the known ambiguity (N,), with median and quartiles in ten bins."""
    figure = new_figure(4.5, 2.9)
    axes = figure.subplots()
    axes.scatter(ambiguity, uncertainty, s=4, color=NEUTRAL, alpha=0.25, lw=0)
    edges = np.quantile(ambiguity, np.linspace(0, 1, 11))
    member = np.clip(np.searchsorted(edges, ambiguity, side="right") - 1, 0, 9)
    filled = [b for b in range(10) if (member == b).any()]
    centres = [ambiguity[member == b].mean() for b in filled]
    low, middle, high = np.array([np.quantile(uncertainty[member == b], [0.25, 0.5, 0.75]) for b in filled]).T
    axes.errorbar(
        centres, middle, [middle - low, high - middle], color=UNSURE, marker="o", ms=4, capsize=2, lw=1.2
    )
    axes.set_xlabel("known ambiguity a(x)", fontsize=9)
    axes.set_ylabel("uncertainty", fontsize=9)
    tidy(axes)
    figure.savefig(path)
