"""kNN's share of the votes and its similarities, by loops."""

import numpy as np
import pytest

from vissl_zoo.evaluation.correctness import largest_share
from vissl_zoo.evaluation.knn import TEMPERATURE


@pytest.mark.parametrize("k", [1, 2, 7])
def test_share_of_the_votes(k):
    rng = np.random.default_rng(k)
    similarity = -np.sort(-rng.uniform(-1, 1, (20, k)), axis=1)
    labels = rng.choice([-5, 3, 10**12], (20, k))
    expected = []
    for cosines, classes in zip(similarity, labels, strict=True):
        votes = {}
        for cosine, name in zip(cosines, classes, strict=True):
            votes[name] = votes.get(name, 0) + np.exp(cosine / TEMPERATURE)
        expected.append(max(votes.values()) / sum(votes.values()))
    assert largest_share(similarity, labels) == pytest.approx(expected, abs=1e-12)
