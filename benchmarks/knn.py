"""kNN: one k and all 200 of ours, and scikit-learn's brute-force cosine classifier.

    python benchmarks/knn.py --output knn.jsonl          # scikit-learn is a dependency of the project

50,000 training and 10,000 test embeddings of 512 numbers in overlapping clusters, one a class; k = 200. scikit-learn is
given the same votes, exp(s / T), and both must predict the same classes but for ties in the last digit. "One k" of ours
is the search for k neighbours and one vote; "all k" the search for 200 and the votes of 1, 2, … 200.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from measure import Report, Target, compare, in_turns, say, with_version
from options import Options, main
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from vissl_zoo.evaluation.neighbours import MOST_NEIGHBOURS, TEMPERATURE, nearest, predict_for_every_k

CLASSES = 10


@dataclass(frozen=True)
class KnnOptions(Options):
    """How much to search."""

    LEAST = {"bank": MOST_NEIGHBOURS}

    bank: int = 50_000
    """Training embeddings."""
    queries: int = 10_000
    """Test embeddings."""
    width: int = 512
    """Numbers of an embedding."""
    repeats: int = 3
    """Timed calls of each."""


def measure(options: KnnOptions, report: Report) -> None:
    """Time all in turns and report."""
    bank, queries, width, repeats = options.bank, options.queries, options.width, options.repeats
    if options.quick:
        bank, queries, width, repeats = 2_000, 200, 64, 2
    features, labels = clusters(bank + queries, width)
    learnt, asked = features[:bank], features[bank:]
    known, truth = labels[:bank], labels[bank:]
    said: dict[str, np.ndarray] = {}

    def one() -> np.ndarray:
        return vote(*nearest(asked, learnt, MOST_NEIGHBOURS), known).numpy()

    def every() -> np.ndarray:
        similarity, index = nearest(asked, learnt, MOST_NEIGHBOURS)
        return predict_for_every_k(similarity, known[index], CLASSES).numpy()

    def scikit() -> np.ndarray:
        classifier = KNeighborsClassifier(
            MOST_NEIGHBOURS, algorithm="brute", metric="cosine", weights=exponential
        )
        return classifier.fit(learnt.numpy(), known.numpy()).predict(asked.numpy())

    size = f"{bank:,} × {queries:,} × {width}"
    say(f"knn: {size}")
    work = {"all": every, "one": one, "scikit-learn": scikit}
    calls = {name: (lambda n=name, call=call: said.update({n: call()})) for name, call in work.items()}
    seconds = in_turns(calls, repeats)
    details = agreement(said, truth.numpy())
    every_k = f"knn: {size}, all {MOST_NEIGHBOURS} k beside one k = {MOST_NEIGHBOURS}"
    against, target = f"ours, one k = {MOST_NEIGHBOURS}", Target("≤", 1.1)
    report.add(
        compare(every_k, "s", seconds["all"], seconds["one"], against=against, target=target, details=details)
    )
    speeds = {name: [1 / second for second in taken] for name, taken in seconds.items()}
    one_k = f"knn: {size}, one k = {MOST_NEIGHBOURS}"
    against, target = f"{with_version('scikit-learn')}, brute force", Target("≥", 2.0)
    report.add(
        compare(one_k, "searches/s", speeds["one"], speeds["scikit-learn"], against=against, target=target)
    )


def clusters(count: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings (count, width) float32 in overlapping clusters, and their classes (count,)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, width, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.randn(count, width, generator=generator)
    return 0.15 * centres[labels] + noise + 0.5, labels  # off the origin, as embeddings behind a ReLU are


def vote(similarity: Tensor, index: Tensor, labels: Tensor) -> Tensor:
    """The classes (N,) that k neighbours (N, k) vote for, each with exp(s / T)."""
    votes = torch.zeros(len(index), CLASSES, dtype=torch.float64)
    votes.scatter_add_(1, labels[index], (similarity.double() / TEMPERATURE).exp())
    return votes.argmax(1)


def exponential(distance: np.ndarray) -> np.ndarray:
    """scikit-learn's weights of neighbours at a cosine distance."""
    return np.exp((1 - distance) / TEMPERATURE)


def agreement(said: dict[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
    """Accuracies, and the share of the test images on which ours says what scikit-learn says."""
    return {
        "top1_ours": float((said["one"] == truth).mean()),
        "top1_scikit_learn": float((said["scikit-learn"] == truth).mean()),
        "same_as_scikit_learn": float((said["one"] == said["scikit-learn"]).mean()),
        "last_of_all_same_as_one": float((said["all"][:, -1] == said["one"]).mean()),
    }


if __name__ == "__main__":
    sys.exit(main("knn", KnnOptions(), __doc__, measure))
