"""The nearest neighbours by cosine, and what they vote for (§6.1, App. B): votes are weighted by exp(s / T).

All k come from one sorted list of neighbours, and k is chosen on a split of the training set, never on the test set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

TEMPERATURE = 0.07
MOST_NEIGHBOURS = 200
FEWEST = 5  # labelled training images, of any classifier
VALIDATION_SHARE = 0.2  # of the training set, as in the paper
_CELLS = 2**25  # similarities held at once


class KNNResult(NamedTuple):
    """kNN on N test images.

    Attributes:
        top1: fraction of the test images that are classified correctly.
        k: neighbours that vote, chosen on the held-out training images.
        predictions, correct: (N,).
        share: (N,), the share of the votes that the winning class has.
        similarity: (N,), mean cosine of each test image to its k neighbours.
        validation_top1: (K,), accuracy on the held-out images for every k from 1 to K.
    """

    top1: float
    k: int
    predictions: np.ndarray
    correct: np.ndarray
    share: np.ndarray
    similarity: np.ndarray
    validation_top1: np.ndarray


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarity and index (N, k) of each query's k nearest in the bank, the nearest first.

    Args:
        queries: (N, F), normalised here.
        bank: (M, F), normalised here, M >= k.
        k: neighbours.
    """
    queries, bank = normalize(queries.float(), dim=1), normalize(bank.float(), dim=1)
    found = [(part @ bank.T).topk(k, dim=1) for part in queries.split(max(1, _CELLS // len(bank)))]
    return torch.cat([values for values, _ in found]), torch.cat([indices for _, indices in found])


def predict_for_every_k(similarity: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Predicted class (N, K) from the first 1, 2, … K neighbours.

    Args:
        similarity: (N, K), sorted, the nearest first.
        labels: (N, K), the neighbours' classes.
        classes: number of classes.
    """
    votes = torch.zeros(len(similarity), classes, dtype=torch.float64)
    weights = (similarity.double() / TEMPERATURE).exp()
    predictions = torch.empty(labels.shape, dtype=torch.int64)
    # A vote can only raise its own class, so the leader is found without a look at the others. Of equals the lower
    # class leads, as `argmax` has it.
    leader, most = torch.full((len(labels),), classes), torch.full((len(labels),), -torch.inf).double()
    for k, (label, weight) in enumerate(zip(labels.unbind(1), weights.unbind(1), strict=True)):
        raised = votes.gather(1, label[:, None])[:, 0] + weight
        votes.scatter_(1, label[:, None], raised[:, None])
        leads = (raised > most) | ((raised == most) & (label < leader))
        leader, most = torch.where(leads, label, leader), torch.where(leads, raised, most)
        predictions[:, k] = leader
    return predictions


def largest_share(similarity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share (N,) of the votes that the winning class has, of neighbours' cosines and classes (N, k)."""
    names, numbered = np.unique(labels, return_inverse=True)
    # Only ratios count, and the largest exponent is then 0.
    weights = np.exp((similarity - similarity[:, :1]).astype(np.float64) / TEMPERATURE)
    cells = numbered.reshape(labels.shape) + len(names) * np.arange(len(labels))[:, None]
    votes = np.bincount(cells.ravel(), weights.ravel(), minlength=labels.shape[0] * len(names))
    return votes.reshape(len(labels), len(names)).max(axis=1) / weights.sum(axis=1)


def knn(
    bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, query_labels: np.ndarray, *, seed: int = 0
) -> KNNResult:
    """Top-1 accuracy of the queries, k in 1…200 chosen on a fifth of the bank held out from the rest.

    Args:
        bank: training embeddings (M, F).
        bank_labels: classes (M,), any integers.
        queries: test embeddings (N, F).
        query_labels: classes (N,).
        seed: of the choice of the held-out fifth.

    Raises:
        ValueError: with fewer than 5 training or 1 test image.
    """
    if len(bank) < FEWEST or len(queries) < 1:
        raise ValueError(f"kNN needs {FEWEST} training and 1 test image, not {len(bank)} and {len(queries)}")
    # Labels may be any integers, such as ids: they are numbered here, so that votes need no more room than classes.
    names, numbered = np.unique(np.concatenate([bank_labels, query_labels]), return_inverse=True)
    features, labels = torch.from_numpy(bank), torch.from_numpy(numbered[: len(bank_labels)])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(bank)))
    held_out = max(1, int(VALIDATION_SHARE * len(bank)))
    validation, rest = order[:held_out], order[held_out:]
    similarity, index = nearest(features[validation], features[rest], min(MOST_NEIGHBOURS, len(rest)))
    guesses = predict_for_every_k(similarity, labels[rest][index], len(names))
    accuracy = (guesses == labels[validation, None]).double().mean(0)
    best = int(accuracy.argmax()) + 1
    similarity, index = nearest(torch.from_numpy(queries), features, best)
    voters = labels[index]
    predictions = names[predict_for_every_k(similarity, voters, len(names))[:, -1].numpy()]
    correct = predictions == query_labels
    share, close = largest_share(similarity.numpy(), voters.numpy()), similarity.mean(dim=1).numpy()
    return KNNResult(float(correct.mean()), best, predictions, correct, share, close, accuracy.numpy())
