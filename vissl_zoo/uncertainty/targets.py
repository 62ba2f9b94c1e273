"""What κ can be fitted to: label-free estimates p of the chance that the kind of an image is recognised.

A target is a function. It takes embeddings (N, 1 + V, F) float32, of the clean image first and of its V views after
it, and a seed. It returns p (N, 1 + V) float32 in [0, 1]: what the clean image and what each view says. The head is
fitted to p by cross-entropy, so that its uncertainty (d-1)/(d-1+κ) becomes 1 - p. Each target is a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from vissl_zoo.uncertainty.cluster_agreement import cluster_agreement
from vissl_zoo.uncertainty.neighbour_overlap import neighbour_overlap
from vissl_zoo.uncertainty.view_agreement import view_agreement

Target = Callable[[np.ndarray, int], Tensor]

TARGETS: dict[str, Target] = {
    "clusters": cluster_agreement,
    "neighbours": neighbour_overlap,
    "views": view_agreement,
}
