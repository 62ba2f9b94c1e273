"""Which test images a classifier gets right, and how sure it is: what a score of uncertainty is judged by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.linear_classifier import linear_predictions
from vissl_zoo.evaluation.neighbours import FEWEST, KNNResult, knn


class Answers(NamedTuple):
    """What a classifier said of the N test images, in the order of `evaluation.test_features`.

    Attributes:
        known: (N,) bool, which have a label; the others have no place in `correct`.
        correct: (N,) bool, False where not known.
        max_probability: (N,) of the predicted class.
        similarity: (N,) mean cosine to the k neighbours, or None for a classifier without neighbours.
    """

    known: np.ndarray
    correct: np.ndarray
    max_probability: np.ndarray
    similarity: np.ndarray | None


def knn_result(evaluation: Evaluation) -> KNNResult | Undefined:
    """kNN on all N test images with the k that the labelled training images chose; found once.

    Its `correct` is False, and its `top1` leaves out, where an image has no label.
    """
    if "knn" not in evaluation.memo:
        bank, queries = evaluation.train_features, evaluation.test_features
        learnt, known = evaluation.train_labels >= 0, evaluation.test_labels >= 0
        if learnt.sum() < FEWEST or not known.any():
            return Undefined(f"fewer than {FEWEST} labelled training images, or no labelled test image")
        labels, asked = evaluation.train_labels[learnt], evaluation.test_labels
        result = knn(bank.embedding[learnt], labels, queries.embedding, asked, seed=evaluation.seed)
        correct = result.correct & known
        evaluation.memo["knn"] = result._replace(top1=float(correct[known].mean()), correct=correct)
        evaluation.predictions["knn_pred"] = result.predictions
    return evaluation.memo["knn"]


def knn_answers(evaluation: Evaluation) -> Answers | Undefined:
    """kNN's; its probability of a class is the class's share of the votes."""
    if reason := _lacks(evaluation):
        return Undefined(reason)
    found = knn_result(evaluation)
    if isinstance(found, Undefined):
        return found
    return Answers(evaluation.test_labels >= 0, found.correct, found.share, found.similarity)


def linear_answers(evaluation: Evaluation) -> Answers | Undefined:
    """The linear classifier's, from the linear protocol where that has run, else trained here with its defaults."""
    if reason := _lacks(evaluation):
        return Undefined(reason)
    result = linear_predictions(evaluation)
    if isinstance(result, Undefined):
        return result
    evaluation.predictions.setdefault("linear_pred", result.predictions)
    return Answers(evaluation.test_labels >= 0, result.correct, result.max_probability, None)


def _lacks(evaluation: Evaluation) -> str | None:
    """Why no classifier can be judged here, or None if one can."""
    if evaluation.test.labels is None:
        return "the images have no labels"
    if evaluation.train is None:
        return "there is no training split to learn from"
    return None if evaluation.train.labels is not None else "the training images have no labels"
