"""The target "neighbours": whether a view has the neighbours that its clean image has.

p of a view is the share of the clean image's nearest images that are also the view's. p of the clean image is the mean
over its views. A view that keeps its neighbours keeps its kind, however far its direction moves. Shared neighbours as a
measure of kinship are from Jarvis & Patrick (1973). It costs V searches among at most 10,000 images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vissl_zoo.uncertainty.clusterings import Clusterings

_PART = 4096  # images looked at together


def neighbour_overlap(embeddings: np.ndarray, seed: int) -> Tensor:
    """See `targets`; the neighbours are those of `Clusterings`."""
    clusterings = Clusterings.fit(embeddings[:, 0], seed, sizes=())
    clean = clusterings.directions(embeddings[:, 0])
    _, own = clusterings.neighbours(clean)
    found = []
    for view in range(1, embeddings.shape[1]):
        _, other = clusterings.neighbours(clusterings.directions(embeddings[:, view]))
        pairs = zip(own.split(_PART), other.split(_PART), strict=True)
        shared = [(a[:, :, None] == b[:, None]).any(2) for a, b in pairs]
        found.append(torch.cat(shared).float().mean(dim=1))
    views = torch.stack(found, dim=1)
    return torch.cat([views.mean(dim=1, keepdim=True), views], dim=1)
