"""What κ is fitted to: how well the views of an image agree. Another target would replace this file.

The latent of a view is its embedding, centred and of unit length: z = (y - m)/‖y - m‖, with m the mean over the images
to learn from. The likelihood of a view i is the mean over the other views j of log p(z_j | x_i), which is linear in
log1p(z_i·z_j) (Eq. 33). So the mean of those is all that the fit must know of a view.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical
from vissl_zoo.errors import UserError

LEAST_COSINE = -1 + 1e-6  # below lie only rounding and exact antipodes, where log1p has no finite value
CONSTANT = 1e-3  # a spread below that share of the embeddings' length is the rounding of their arithmetic
_CHUNK = 2**24  # numbers read at once: 64 MB


class Targets(NamedTuple):
    """What the views of N images have in common.

    Attributes:
        mean: (F,) float32, m.
        spread: root of the mean square of the centred embeddings, one number for all F.
        agreement: (N, V) float64, the mean of log1p(z_i·z_j) over the other views j of the image.
    """

    mean: Tensor
    spread: float
    agreement: Tensor


def measure_agreement(embeddings: np.ndarray, learnt: np.ndarray) -> Targets:
    """Centre the embeddings and measure how well the views of each image agree.

    Args:
        embeddings: (N, V, F) float32, of V >= 2 views.
        learnt: (N,) bool, the images over which m and the spread are taken: not the held-out ones.

    Raises:
        UserError: the embeddings are all the same, so that there is nothing to agree on.
    """
    images, views, width = embeddings.shape
    step = max(1, _CHUNK // (views * width))
    parts = [slice(first, first + step) for first in range(0, images, step)]
    count = int(learnt.sum()) * views
    mean = sum(embeddings[part][learnt[part]].sum(axis=(0, 1), dtype=np.float64) for part in parts) / count
    variance = length = 0.0
    for part in parts:
        y = embeddings[part][learnt[part]].astype(np.float64)
        variance += float(np.square(y - mean).sum()) / count
        length += float(np.square(y).sum()) / count
    if variance <= CONSTANT**2 * length:
        raise UserError(
            "the model gives nearly the same embedding for every view of every image: no κ can be fitted to it"
        )
    spread = math.sqrt(variance / width)
    agreement = [_mean_log1p(torch.from_numpy((embeddings[part] - mean) / spread)) for part in parts]
    return Targets(torch.from_numpy(mean).float(), spread, torch.cat(agreement))


def log_likelihood(kappa: Tensor, agreement: Tensor, dim: int) -> Tensor:
    """The mean of log p(z_j | x_i) over the other views j, in nats over the uniform distribution, float64 (B,).

    As a mean of values linear in log1p(t), it is the value of the t at which log1p(t) is the mean: `agreement` (B,).
    """
    cosine = torch.expm1(agreement.double())
    mu, z = torch.zeros(dim, dtype=torch.float64), torch.zeros(*cosine.shape, dim, dtype=torch.float64)
    mu[0], z[..., 0], z[..., 1] = 1, cosine, (1 - cosine.square()).clamp_min(0).sqrt()
    uniform = HypersphericalUniform(dim, validate_args=False).log_prob(z)
    return PowerSpherical(mu, kappa, validate_args=False).log_prob(z) - uniform


def best_constant(agreement: Tensor, dim: int) -> float:
    """The κ, one for all, of greatest likelihood; between (d-1)e^-7 and (d-1)e^7 as the exp map."""
    mean = agreement.mean()

    def loss(log_kappa: float) -> float:
        kappa = torch.tensor((dim - 1) * math.exp(log_kappa), dtype=torch.float64)
        return -float(log_likelihood(kappa, mean, dim))

    return (dim - 1) * math.exp(minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded").x)


def _mean_log1p(centred: Tensor) -> Tensor:
    """(B, V) means of log1p(z_i·z_j) over j ≠ i, of centred embeddings (B, V, F); one at the mean itself stays zero."""
    z = torch.nn.functional.normalize(centred, dim=-1)
    terms = torch.log1p((z @ z.mT).clamp(LEAST_COSINE, 1))
    return (terms.sum(dim=2) - terms.diagonal(dim1=1, dim2=2)) / (z.shape[1] - 1)
