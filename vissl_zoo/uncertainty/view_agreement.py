"""The target "views": how near the other views of an image lie.

For a Power Spherical posterior around the direction of one view, E[t] = κ/(d-1+κ) (De Cao & Aziz, 2020). So p is the
mean cosine of a view with the image's other views. The embeddings are centred by the mean over the clean images. This
is the agreement that VI-SimSiam learns (Nakamura et al., 2023, Eq. 33). It costs V²NF operations.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

_CHUNK = 2**24  # numbers read at once: 64 MB


def view_agreement(embeddings: np.ndarray, seed: int) -> Tensor:
    """See `targets`; a negative mean cosine counts as 0, and the seed is not needed."""
    images, columns, width = embeddings.shape
    mean = embeddings[:, 0].mean(axis=0, dtype=np.float64).astype(np.float32)
    step = max(1, _CHUNK // (columns * width))
    found = []
    for first in range(0, images, step):
        z = normalize(torch.from_numpy(embeddings[first : first + step] - mean), dim=-1)
        cosines = z @ z[:, 1:].mT  # (n, 1 + V, V)
        cosines.diagonal(offset=-1, dim1=1, dim2=2).zero_()  # of a view with itself
        others = torch.full((columns,), columns - 2.0)
        others[0] = columns - 1
        found.append((cosines.sum(dim=2) / others).clamp(0, 1))
    return torch.cat(found)
