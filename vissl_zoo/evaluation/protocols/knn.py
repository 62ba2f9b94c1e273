"""kNN (§6.1, App. B): cosine similarity, votes weighted by exp(s / 0.07), k of 1 to 200 chosen on a held-out fifth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vissl_zoo.evaluation import knn as nearest_neighbours
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.figures import NEUTRAL, UNSURE, new_figure, tidy

TITLE = "k nearest neighbours"
NEEDS = {"labels", "train"}
PAPER: dict[str, str] = {}


@dataclass(frozen=True)
class Options:
    """kNN has nothing to choose: k is chosen by the data."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Top-1 accuracy on the test images, and the k that a fifth of the training images chose."""
    bank, queries = evaluation.train_features, evaluation.test_features
    known, asked = evaluation.train_labels >= 0, evaluation.test_labels >= 0
    if known.sum() < nearest_neighbours.FEWEST or not asked.any():
        yield "knn.top1", Undefined(f"fewer than {nearest_neighbours.FEWEST} labelled training images")
        return
    result = nearest_neighbours.knn(
        bank.embedding[known],
        evaluation.train_labels[known],
        queries.embedding[asked],
        evaluation.test_labels[asked],
        seed=evaluation.seed,
    )
    evaluation.memo["knn"] = result
    predictions = evaluation.test_labels * 0 - 1
    predictions[asked] = result.predictions
    evaluation.predictions["knn_pred"] = predictions
    yield "knn.top1", result.top1
    yield "knn.k", result.k
    yield "knn.bank_images", int(known.sum())
    figure = new_figure(4.5, 2.9)
    axes = figure.subplots()
    axes.plot(range(1, len(result.validation_top1) + 1), result.validation_top1, color=NEUTRAL, lw=1.2)
    axes.axvline(result.k, color=UNSURE, lw=1, ls=":")
    axes.set_xlabel("k", fontsize=9)
    axes.set_ylabel("top-1, held-out training images", fontsize=9)
    tidy(axes)
    evaluation.save_figure(
        figure, "knn.png", f"kNN accuracy for every k; k = {result.k} is reported on the test images"
    )
