"""The Power Spherical distribution, the posterior p(z|x) of VI-SimSiam.

De Cao & Aziz 2020, "The Power Spherical distribution"; Nakamura et al. 2023, Eqs. 31-33. With t = μ·z,
a = (d-1)/2 + κ and b = (d-1)/2,

    log p(z) = log C(κ) + κ log1p(t),      log C(κ) = -[(a+b) log 2 + lnΓ(a) - lnΓ(a+b) + b log π].
"""

import math

import torch
from torch import Tensor
from torch.distributions import Beta, register_kl

from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform, kl_to_uniform
from vissl_zoo.distributions.precision import scalars
from vissl_zoo.distributions.rotationally_symmetric import RotationallySymmetric
from vissl_zoo.distributions.sphere import checked_dim, one_plus_cosine


def log_normalizer(kappa: Tensor, dim: int) -> Tensor:
    """log C(κ) (Eq. 32), in nats, of kappa (...) >= 0 in ambient dimension `dim`, as (...) in float64.

    log C(0) = log C(1) = -log area for every d. Raises ValueError for dim < 2.
    """
    b = (checked_dim(dim) - 1) / 2
    a = scalars(kappa) + b
    return -((a + b) * math.log(2) + torch.lgamma(a) - torch.lgamma(a + b) + b * math.log(math.pi))


class PowerSpherical(RotationallySymmetric):
    """Density proportional to (1 + μ·z)^κ on S^(d-1); the arguments are RotationallySymmetric's.

    The gradient of log p(z) in μ is κ z / (1 + μ·z), hundreds of times the cosine's at the κ that training reaches.
    At the antipode both stay finite, with 1 + μ·z >= 1e-12.
    """

    def _log_density(self, kappa: Tensor, z: Tensor) -> Tensor:
        """log C(κ) + κ log1p(μ·z) (Eq. 33)."""
        one_plus = scalars(one_plus_cosine(self.mu, z, least=1e-12))
        return log_normalizer(kappa, self.dim) + kappa * torch.log(one_plus)

    def _entropy(self, kappa: Tensor) -> Tensor:
        """-(log C(κ) + κ (log 2 + ψ(a) - ψ(a+b))), whose gradient in κ is κ (ψ′(a+b) - ψ′(a)) <= 0."""
        b = (self.dim - 1) / 2
        mean_log1p = math.log(2) + torch.digamma(kappa + b) - torch.digamma(kappa + 2 * b)
        return -(log_normalizer(kappa, self.dim) + kappa * mean_log1p)

    def _mean_cosine(self, kappa: Tensor) -> Tensor:
        return kappa / (self.dim - 1 + kappa)

    def _variances(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """With s = d-1+κ: Var[t] = (d-1) (d-1+2κ) / (s²(s+1)) and E[1-t²] the same times s."""
        s = self.dim - 1 + kappa
        across = (s + kappa) / (s * (s + 1))
        return across * (self.dim - 1) / s, across

    def _sample_cosine_and_sine(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """t = 2B - 1 with B ~ Beta(a, b)."""
        b = torch.full_like(kappa, (self.dim - 1) / 2)
        part = Beta(b + kappa, b, validate_args=False).rsample()
        # At zero the square root's gradient would be infinite.
        return 2 * part - 1, 2 * (part * (1 - part)).clamp_min(torch.finfo(part.dtype).tiny).sqrt()


register_kl(PowerSpherical, HypersphericalUniform)(kl_to_uniform)
