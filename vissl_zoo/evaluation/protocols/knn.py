"""kNN (§6.1, App. B): cosine similarity, votes weighted by exp(s / 0.07), k of 1 to 200 chosen on a held-out fifth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.correctness import knn_result
from vissl_zoo.evaluation.figures import NEUTRAL, UNSURE, new_figure, tidy

TITLE = "k nearest neighbours"
NEEDS = {"labels", "train"}
PAPER: dict[str, str] = {}


@dataclass(frozen=True)
class Options:
    """kNN has nothing to choose: k is chosen by the data."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Top-1 accuracy on the test images, and the k that a fifth of the training images chose."""
    result = knn_result(evaluation)
    if isinstance(result, Undefined):
        yield "knn.top1", result
        return
    yield "knn.top1", result.top1
    yield "knn.k", result.k
    yield "knn.bank_images", int((evaluation.train_labels >= 0).sum())
    figure = new_figure(4.5, 2.9)
    axes = figure.subplots()
    axes.plot(range(1, len(result.validation_top1) + 1), result.validation_top1, color=NEUTRAL, lw=1.2)
    axes.axvline(result.k, color=UNSURE, lw=1, ls=":")
    axes.set_xlabel("k", fontsize=9)
    axes.set_ylabel("top-1, held-out training images", fontsize=9)
    tidy(axes)
    caption = f"kNN accuracy for every k; k = {result.k} is reported on the test images"
    evaluation.save_figure(figure, "knn.png", caption)
