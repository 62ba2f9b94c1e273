"""Several clusterings of one set of images, and how often two images fall into the same cluster.

This is evidence accumulation (Fred & Jain, 2005, "Combining multiple clusterings using evidence accumulation"). One
k-means says little, but the share of many of them that put two images together is a measure of kinship. The clusterings
have few large to many small clusters, since nobody knows how fine the kinds are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn.functional import normalize

from vissl_zoo.evaluation.neighbours import nearest

SIZES = (30, 100, 300, 600)  # clusters of a clustering; a cluster has five images at least, on average
RUNS = 4  # clusterings of each size
COMPONENTS = 128  # principal components in which images are clustered: more cost time and gained nothing
NEIGHBOURS = 25  # as of TEMI (Adaloglou et al., 2023); a tenth of a small set
BANK = 10_000  # images that are clustered, and among which neighbours are sought, at most
COPY = (
    0.999  # cosine; a neighbour as near as that is the image itself or a copy, and tells nothing of its kind
)
_ROUNDS = 20  # of k-means
_PART = 4096  # images looked at together


@dataclass(frozen=True)
class Clusterings:
    """R clusterings of M images, the bank.

    Attributes:
        mean: (F,) of the clean embeddings.
        basis: (F, D), principal components of the unit centred embeddings.
        centres: of each clustering, (C, D) of unit length.
        bank: (M, D), directions of the images that were clustered.
        members: (M, R), the cluster of each of them in each clustering.
    """

    mean: Tensor
    basis: Tensor
    centres: list[Tensor]
    bank: Tensor
    members: Tensor

    @classmethod
    def fit(cls, clean: np.ndarray, seed: int, sizes: Sequence[int] = SIZES) -> Clusterings:
        """Cluster the embeddings (N, F) float32 of clean images, a random 10,000 of them at most."""
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(clean))[:BANK])
        y = torch.from_numpy(np.ascontiguousarray(clean[chosen], dtype=np.float32))
        mean = y.mean(dim=0)
        unit = normalize(y - mean, dim=1)
        pca = PCA(min(COMPONENTS, *unit.shape), svd_solver="randomized", random_state=seed)
        with np.errstate(invalid="ignore"):  # its share of the variance, which equal images do not have
            axes: Any = pca.fit(unit.numpy()).components_
        basis = torch.from_numpy(axes.T.copy()).float()
        made = cls(mean, basis, [], normalize(unit @ basis, dim=1), torch.empty(len(y), 0, dtype=torch.int64))
        fine = [size for size in sizes if 5 * size <= len(y)] or [max(2, len(y) // 5)] * bool(sizes)
        with warnings.catch_warnings():  # of equal images there are fewer clusters than asked for
            warnings.simplefilter("ignore", ConvergenceWarning)
            for size in fine:
                for _ in range(RUNS):
                    kmeans = KMeans(size, max_iter=_ROUNDS, random_state=int(rng.integers(2**31)))
                    found = kmeans.fit(made.bank.numpy()).cluster_centers_
                    made.centres.append(normalize(torch.from_numpy(found), dim=1))
        return cls(mean, basis, made.centres, made.bank, made.clusters(made.bank))

    def directions(self, embeddings: np.ndarray) -> Tensor:
        """Embeddings (N, F) -> unit vectors (N, D)."""
        parts = np.array_split(embeddings, -(-len(embeddings) // _PART))
        centred = (torch.from_numpy(np.asarray(part, dtype=np.float32)) - self.mean for part in parts)
        return torch.cat([normalize(y @ self.basis, dim=1) for y in centred])

    def clusters(self, directions: Tensor) -> Tensor:
        """The cluster (N, R) of each image in each clustering."""
        found = [
            torch.cat([(part @ c.T).argmax(dim=1) for part in directions.split(_PART)]) for c in self.centres
        ]
        return torch.stack(found, dim=1) if found else torch.empty(len(directions), 0, dtype=torch.int64)

    def neighbours(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cosine (N,) to, and places in the bank (N, K) of, each image's nearest that are no copies of it."""
        count = max(1, min(NEIGHBOURS, len(self.bank) // 10))
        cosine, place = nearest(directions, self.bank, count + 1)
        same = (cosine[:, :1] > COPY).long()  # where the nearest is a copy, the second to the last count
        order = torch.arange(count) + same
        return cosine.gather(1, order).mean(dim=1), place.gather(1, order)

    def agreement(self, directions: Tensor, neighbours: Tensor) -> Tensor:
        """How often (N,) an image falls into the cluster of a neighbour: the mean over neighbours and clusterings."""
        own = self.clusters(directions)
        parts = zip(own.split(_PART), neighbours.split(_PART), strict=True)
        return torch.cat([(a[:, None] == self.members[near]).float().mean(dim=(1, 2)) for a, near in parts])
