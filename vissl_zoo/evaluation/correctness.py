"""Which test images a classifier gets right, and how sure it is: what a score of uncertainty is judged by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.knn import FEWEST, TEMPERATURE, knn, nearest
from vissl_zoo.evaluation.linear import linear_predictions


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


def knn_answers(evaluation: Evaluation) -> Answers | Undefined:
    """kNN with the k that the training set chose; its probability of a class is the class's share of the votes."""
    if reason := _lacks(evaluation):
        return Undefined(reason)
    bank, queries = evaluation.train_features, evaluation.test_features
    learnt, known = evaluation.train_labels >= 0, evaluation.test_labels >= 0
    if learnt.sum() < FEWEST or not known.any():
        return Undefined(f"fewer than {FEWEST} labelled training images, or no labelled test image")
    features, labels = bank.embedding[learnt], evaluation.train_labels[learnt]
    if "knn" not in evaluation.memo:
        asked = queries.embedding[known], evaluation.test_labels[known]
        evaluation.memo["knn"] = knn(features, labels, *asked, seed=evaluation.seed)
    result = evaluation.memo["knn"]
    correct, predictions = np.zeros(len(known), dtype=bool), np.full(len(known), -1)
    correct[known], predictions[known] = result.correct, result.predictions
    evaluation.predictions.setdefault("knn_pred", predictions)
    similarity, index = nearest(torch.from_numpy(queries.embedding), torch.from_numpy(features), result.k)
    share = largest_share(similarity.double().numpy(), labels[index.numpy()])
    return Answers(known, correct, share, similarity.mean(dim=1).numpy())


def linear_answers(evaluation: Evaluation) -> Answers | Undefined:
    """The linear classifier, from the linear protocol where that has run, else trained here with its defaults."""
    if reason := _lacks(evaluation):
        return Undefined(reason)
    result = linear_predictions(evaluation)
    if isinstance(result, Undefined):
        return result
    evaluation.predictions.setdefault("linear_pred", result.predictions)
    return Answers(evaluation.test_labels >= 0, result.correct, result.max_probability, None)


def largest_share(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share (N,) of the votes exp(s / T) that the winning class has, of neighbours' cosines and classes (N, k)."""
    names, numbered = np.unique(labels, return_inverse=True)
    # Only ratios count, and the largest exponent is then 0.
    weights = np.exp((similarity - similarity[:, :1]) / TEMPERATURE)
    cells = numbered.reshape(labels.shape) + len(names) * np.arange(len(labels))[:, None]
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=labels.shape[0] * len(names))
    return votes.reshape(len(labels), len(names)).max(axis=1) / weights.sum(axis=1)


def _lacks(evaluation: Evaluation) -> str | None:
    """Why no classifier can be judged here, or None if one can."""
    if evaluation.test.labels is None:
        return "the images have no labels"
    if evaluation.train is None:
        return "there is no training split to learn from"
    return None if evaluation.train.labels is not None else "the training images have no labels"
