"""Galleries (§6.2, Fig. 1, 10, 12, 13): the images that the model is most and least certain of, κ under each.

Two choices, as in the paper: the very first and last of the order (Fig. 12, 13), and images drawn at random from its
top and bottom share (Fig. 1, 10), which show what is typical there. A model with prototypes, DINO, is shown by the
entropy of its categorical, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from vissl_zoo.cli import Count, Within
from vissl_zoo.evaluation import figures
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.output import short_number

TITLE = "galleries of the most and least certain images"
NEEDS = {"kappa"}
PAPER: dict[str, str] = {}


@dataclass(frozen=True)
class Options:
    """How many images, and from how deep in the order."""

    count: Count = 20
    """Images of each kind; at most half of all images are shown as most and half as least certain."""
    share: Annotated[float, Within(0, 0.5, above=True)] = 0.01
    """The top and bottom share of the images from which the second gallery is drawn at random."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Mean, deviation, extremes and median of κ (and of DINO's entropy, in nats) over the test images."""
    features = evaluation.test_features
    yield "gallery.kappa", summary(features.kappa)
    _draw(evaluation, options, features.kappa, "κ", "")
    head = getattr(evaluation.model, "prototype_head", None)
    if head is not None:
        entropy = features.uncertainty * math.log(head.prototypes)
        yield "gallery.entropy", summary(entropy)
        _draw(evaluation, options, -entropy, "H", "_entropy")


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation (of the N, not N - 1), lowest, median and highest of (N,) values."""
    values = values.astype(np.float64)
    return {
        "mean": values.mean(),
        "std": values.std(),
        "lowest": values.min(),
        "median": np.median(values),
        "highest": values.max(),
    }


def extremes(certainty: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` highest (the highest first) and lowest (the lowest first) of (N,); at most half each."""
    order = np.argsort(-certainty, kind="stable")
    count = min(count, max(1, len(order) // 2))
    return order[:count], order[::-1][:count]


def _draw(evaluation: Evaluation, options: Options, certainty: np.ndarray, symbol: str, suffix: str) -> None:
    """The gallery of the extremes, and that of the top and bottom share where it holds more images than are shown."""
    signs = ("lowest", "highest") if symbol == "H" else ("highest", "lowest")
    titles = tuple(
        f"{kind} certain: {sign} {symbol}" for kind, sign in zip(("most", "least"), signs, strict=True)
    )
    blocks = extremes(certainty, options.count)
    caption = f"The {len(blocks[0])} most and least certain test images, {symbol} under each."
    _save(evaluation, blocks, certainty, titles, f"gallery{suffix}.png", caption)
    depth = extremes(certainty, int(options.share * len(certainty)))
    if len(depth[0]) <= options.count:
        return
    rng = np.random.default_rng(evaluation.seed)
    drawn = [block[np.sort(rng.permutation(len(block))[: options.count])] for block in depth]
    caption = (
        f"Images drawn from the {options.share:.0%} most and least certain test images, {symbol} under each."
    )
    _save(evaluation, drawn, certainty, titles, f"gallery_share{suffix}.png", caption)


def _save(evaluation: Evaluation, blocks, certainty: np.ndarray, titles, name: str, caption: str) -> None:
    rows = evaluation.test_features.rows
    symbol = titles[0][-1]
    certain, uncertain = (
        [
            (evaluation.test.read(int(rows[i])), f"{symbol} {short_number(float(abs(certainty[i])))}")
            for i in block
        ]
        for block in blocks
    )
    evaluation.save_figure(figures.gallery(certain, uncertain, titles), name, caption)
