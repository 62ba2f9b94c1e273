"""What a set of images says of one of them: p from its neighbours, beside what κ says of the image alone.

Four scores that need no label order the images: κ, the agreement with the neighbours' clusters, the similarity to the
neighbours, and the length of the centred embedding. None is best on every set of images. The mean of their ranks
(Borda's count) was never far from the best. An image gets the p that has its rank among those of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vissl_zoo.uncertainty.clusterings import Clusterings

FEWEST = 200  # images; what fewer of them say of each other is chance


@dataclass(frozen=True)
class Reference:
    """A set of images, at most 10,000 of it, and how its own images score.

    Attributes:
        clusterings: of the set.
        scores: (S, M), of each of the four scores the values of the set's images, rising; a fifth, where views were
            given, is the agreement of the views.
        mean_rank: (M,), the means of their ranks, rising.
        certainty: (M,), their p, rising.
    """

    clusterings: Clusterings
    scores: Tensor
    mean_rank: Tensor
    certainty: Tensor

    @classmethod
    def fit(cls, embeddings: np.ndarray, kappa: np.ndarray, dim: int, seed: int = 0) -> Reference:
        """Make a reference of a set.

        Args:
            embeddings: (N, 1 + V, F) float32, of the clean images and V >= 0 views of each.
            kappa: (N,) of the clean images.
            dim: d of the sphere on which κ lives.
            seed: of the clusterings, and of the choice of images where there are more than 10,000.
        """
        clusterings = Clusterings.fit(embeddings[:, 0], seed)
        found = _scores(clusterings, embeddings, kappa)
        scores = found.sort(dim=1).values
        own = torch.from_numpy(kappa / (dim - 1 + kappa)).float()
        p = (own + found[1]) / 2
        return cls(clusterings, scores, _mean_rank(scores, found).sort().values, p.sort().values)

    def uncertainty(self, embeddings: np.ndarray, kappa: np.ndarray) -> np.ndarray:
        """1 - p (N,) float32 of any images; embeddings and κ are as for `fit`, with views if it had any."""
        rank = _mean_rank(self.scores, _scores(self.clusterings, embeddings, kappa))
        place = _rank(self.mean_rank, rank) * (len(self.certainty) - 1)
        return 1 - np.interp(place.numpy(), np.arange(len(self.certainty)), self.certainty.numpy()).astype(
            np.float32
        )


def _scores(clusterings: Clusterings, embeddings: np.ndarray, kappa: np.ndarray) -> Tensor:
    """(S, N), higher is surer."""
    clean, *views = (clusterings.directions(embeddings[:, column]) for column in range(embeddings.shape[1]))
    similarity, near = clusterings.neighbours(clean)
    length = (torch.from_numpy(embeddings[:, 0]) - clusterings.mean).norm(dim=1)
    said = [clusterings.agreement(view, near) for view in views]
    last = [torch.stack(said).mean(dim=0)] if said else []
    return torch.stack(
        [torch.from_numpy(kappa).float(), clusterings.agreement(clean, near), similarity, length, *last]
    )


def _mean_rank(scores: Tensor, found: Tensor) -> Tensor:
    """The mean over the scores (S, M) of the ranks (N,) of values (S, N) among them."""
    return torch.stack([_rank(known, v) for known, v in zip(scores, found, strict=True)]).mean(dim=0)


def _rank(known: Tensor, values: Tensor) -> Tensor:
    """The share (N,) of known values (M,), rising, below each value, equal ones counting half."""
    below, upto = (torch.searchsorted(known, values.contiguous(), right=right) for right in (False, True))
    return (below + upto) / (2 * len(known))
