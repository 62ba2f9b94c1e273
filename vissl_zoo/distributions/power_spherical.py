"""The Power Spherical distribution, the posterior p(z|x) of VI-SimSiam.

Source: De Cao & Aziz 2020, "The Power Spherical distribution" (arXiv:2006.04437); Nakamura et al. 2023,
Eqs. 31-33. With t = μ·z, a = (d-1)/2 + κ and b = (d-1)/2,

    log p(z) = log C(κ) + κ log1p(t),
    log C(κ) = lnΓ(a+b) - lnΓ(a) - b log(4π) - κ log 2.

The two parts of log p carry +κ log 2 and -κ log 2. This file adds them before they are rounded:

    log p(z) = log p(μ) + κ log((1+t)/2),        log p(μ) = lnΓ(a+b) - lnΓ(a) - b log(4π).
"""

import math

import torch
from torch import Tensor
from torch.distributions import Dirichlet, register_kl

from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform, check_same_dim
from vissl_zoo.distributions.log_gamma import digamma_difference, log_gamma_ratio
from vissl_zoo.distributions.precision import outside_autocast, result_dtype, widen, with_value, working_dtype
from vissl_zoo.distributions.rotationally_symmetric import RotationallySymmetric
from vissl_zoo.distributions.sphere import checked_dim, log_half_one_plus_cosine


def log_normalizer(kappa: Tensor, dim: int) -> Tensor:
    """log C(κ), in nats, of kappa (...) >= 0 in ambient dimension `dim`, as (...).

    The result is in working precision, float64 where the device has it, so that κ log1p(t) can be added
    before anything is rounded: cast the sum, not the pieces. log C(0) = log C(1) = -log area for every d.
    Raises ValueError for dim < 2. Source: C_PS in Eq. 32.
    """
    dim = checked_dim(dim)
    with outside_autocast(kappa.device):
        kappa = widen(kappa, working_dtype(kappa.device))
        return _log_density_at_mode(kappa, dim) - kappa * math.log(2)


def _log_density_at_mode(kappa: Tensor, dim: int) -> Tensor:
    b = (dim - 1) / 2
    return log_gamma_ratio(b + kappa, b) - b * math.log(4 * math.pi)


class PowerSpherical(RotationallySymmetric):
    """Density proportional to (1 + μ·z)^κ on S^(d-1).

    Args:
        mu: (..., d) mean direction, unit vectors, d >= 2.
        kappa: (...) concentration >= 0, a tensor or a number; 0 is the uniform distribution. It
            broadcasts against mu's leading dimensions.
        validate_args: as in `torch.distributions`. False skips every check that reads data, and with
            them every wait of the host for the device; shapes are always checked.

    E[z] = κ/(d-1+κ) μ. The gradient of log p(z) in μ is κ z / (1 + μ·z), hundreds of times the cosine's at
    the κ that training reaches; at the antipode both stay finite, with 1 + μ·z >= 1e-12 (see
    `log1p_cosine`). Source: Eq. 32.

    Precision: parameters and results are float64 if any input is, otherwise float32, also for bfloat16
    and float16 inputs and under autocast. What lies between is float64. Measured against mpmath for
    d = 2 … 8192, κ = 0 … 1e6 and t = -1 + 1e-6 … 1, over max(|exact|, 1): values and gradients within
    1e-9 for float64 inputs, the worst next to the antipode, where the inputs' own rounding is most of it.

    Devices without float64 (MPS) use the same formulas in float32. There log_prob is within 1e-6 of the
    larger of its parts |log p(μ)| and κ |log((1+t)/2)| (against that, lnΓ differences are off by 1e-2 of
    the whole), the entropy within 1e-6 of itself and the KL divergence within 1e-6 of the entropy, which
    at d = 8192 is 0.01 nats. Gradients are within 1e-6 over max(|exact|, 1).

    Raises ValueError for d < 2 and shapes that do not broadcast, and under validation for κ negative,
    infinite or NaN and for μ off the unit sphere; TypeError for tensors that are not floating-point.
    """

    def entropy(self) -> Tensor:
        """Differential entropy -E[log p], in nats, (*batch): -(log C(κ) + κ (log 2 + ψ(a) - ψ(a+b))).

        Its gradient in κ is κ (ψ′(a+b) - ψ′(a)) <= 0.
        """
        kappa, b = self._working(self.kappa), (self.dim - 1) / 2
        loss_of_mode = kappa * digamma_difference(b + kappa, b)
        return self._result(loss_of_mode - _log_density_at_mode(kappa, self.dim))

    def _log_density(self, kappa: Tensor, value: Tensor) -> Tensor:
        return _log_density_at_mode(kappa, self.dim) + kappa * log_half_one_plus_cosine(self.mu, value)

    def _resultant_length(self, kappa: Tensor) -> Tensor:
        return kappa / (self.dim - 1 + kappa)

    def _variances(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """With s = d-1+κ and t = 2B-1, B ~ Beta(a, b), both are multiples of 4ab = (d-1) (d-1+2κ).

        Var[t] = 4ab / (s²(s+1)) and E[1-t²] = 4ab / (s(s+1)), no small difference of large numbers.
        """
        surface = self.dim - 1
        s = surface + kappa
        across = (surface + 2 * kappa) / (s * (s + 1))
        return across * surface / s, across

    def _cosine_halves(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """B and 1-B for B ~ Beta(a, b), the two parts of one Dirichlet draw."""
        kappa, b = self._kappa_for_sampling(), (self.dim - 1) / 2
        concentration = torch.stack([b + kappa, torch.full_like(kappa, b)], dim=-1)
        draw = Dirichlet(concentration, validate_args=False).rsample(sample_shape)
        draw = draw.to(self.kappa.device, working_dtype(self.kappa.device))
        # At zero the square root's gradient would be infinite.
        return draw.clamp_min(torch.finfo(draw.dtype).tiny).unbind(-1)


@register_kl(PowerSpherical, HypersphericalUniform)
def _kl_power_spherical_uniform(p, q):
    """log area - H(p), in nats, written so that it is 0 at κ = 0 and never below it."""
    check_same_dim(p, q)
    kappa, b = p._working(p.kappa), (p.dim - 1) / 2
    rise = log_gamma_ratio(b + kappa, b) - log_gamma_ratio(torch.full_like(kappa, b), b)
    kl = rise - kappa * digamma_difference(b + kappa, b)
    # Around κ = 0 the value is O(κ²) and rounding can make it negative; the gradient has no such trouble.
    kl = with_value(kl.clamp_min(0), kl)
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return kl.expand(shape).to(result_dtype(p.mu.dtype, q.dtype))
