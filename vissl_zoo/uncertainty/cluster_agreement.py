"""The target "clusters": how often a view falls into the same cluster as the neighbours of its image.

There are several clusterings (see `Clusterings`). p of a view, or of the clean image, is the share of the clean image's
neighbours, and of the clusterings, in which both fall into one cluster. It is the vote of a nearest-neighbour
classifier with clusters for labels. An image that lies between kinds is voted down, and so is a view that leaves its
kind. Evidence accumulation is from Fred & Jain (2005). To learn from pairs of neighbours is TEMI's idea (Adaloglou et
al., 2023); hard clusters by k-means did no worse here and take seconds. 10,000 images with 8 views took 17 s on a core.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vissl_zoo.uncertainty.clusterings import Clusterings


def cluster_agreement(embeddings: np.ndarray, seed: int) -> Tensor:
    """See `targets`."""
    clusterings = Clusterings.fit(embeddings[:, 0], seed)
    _, near = clusterings.neighbours(clusterings.directions(embeddings[:, 0]))
    columns = (clusterings.directions(embeddings[:, column]) for column in range(embeddings.shape[1]))
    return torch.stack([clusterings.agreement(column, near) for column in columns], dim=1)
