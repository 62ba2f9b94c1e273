"""The von Mises-Fisher distribution, the posterior p(z|x) of SimSiam and SimCLR in Table 1.

Source: Mardia & Jupp 2000, "Directional Statistics", §9.3; Nakamura et al. 2023. With t = μ·z and ν = d/2 - 1,

    log p(z) = log C(κ) + κ t,
    log C(κ) = ν log κ - (d/2) log 2π - log I_ν(κ) = -log area - κ - log_bessel(κ, ν).

The two parts of log p carry -κ and +κ. This file adds them before they are rounded:

    log p(z) = log p(μ) - κ (1-t),        log p(μ) = -log area - log_bessel(κ, ν),

where log_bessel(κ, ν) = log E[e^(-κ(1-t))] under the uniform distribution; it is 0 at κ = 0.
"""

import torch
from torch import Tensor
from torch.distributions import register_kl

from vissl_zoo.distributions.bessel import (
    bessel_ratio,
    bessel_ratio_complement,
    bessel_ratio_over_x,
    bessel_ratio_slope,
    log_bessel,
)
from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform, check_same_dim
from vissl_zoo.distributions.precision import outside_autocast, result_dtype, widen, with_value, working_dtype
from vissl_zoo.distributions.rotationally_symmetric import RotationallySymmetric
from vissl_zoo.distributions.sphere import checked_dim, log_area, one_minus_cosine
from vissl_zoo.distributions.vmf_cosine import CosineHalves


def vmf_log_normalizer(kappa: Tensor, dim: int) -> Tensor:
    """log C(κ), in nats, of kappa (...) >= 0 in ambient dimension `dim`, as (...).

    The result is in working precision, float64 where the device has it, so that κ μ·z can be added before
    anything is rounded: cast the sum, not the pieces. log C(0) = -log area. The derivative is -A_d(κ), minus
    the mean resultant length, and every further one is right too. Without reading data: it compiles
    to one graph and never waits for the device.

    Measured against mpmath for d = 2 … 8192 and κ = 0 … 1e6, over max(|exact|, 1): value, first and second
    derivative within 1e-14 in float64, and within 2e-6 in float32 where float64 is missing.
    Raises ValueError for dim < 2.
    """
    dim = checked_dim(dim)
    with outside_autocast(kappa.device):
        kappa = widen(kappa, working_dtype(kappa.device))
        return _log_density_at_mode(kappa, dim) - kappa


def _log_density_at_mode(kappa: Tensor, dim: int) -> Tensor:
    return -log_area(dim) - log_bessel(kappa, dim / 2 - 1)


class VonMisesFisher(RotationallySymmetric):
    """Density proportional to e^(κ μ·z) on S^(d-1).

    Args:
        mu: (..., d) mean direction, unit vectors, d >= 2.
        kappa: (...) concentration >= 0, a tensor or a number; 0 is the uniform distribution. It
            broadcasts against mu's leading dimensions.
        validate_args: as in `torch.distributions`. False skips every check that reads data, and with
            them every wait of the host for the device; shapes are always checked.

    E[z] = A_d(κ) μ with A_d = I_{d/2} / I_{d/2-1}. The gradient of log p(z) in μ is κ z, everywhere finite.
    `rsample` draws t by rejection (Wood 1994), for which the host waits for the device, and has an exact
    gradient, once: implicit in κ and through the rotation in μ (see `vmf_cosine`).

    Precision: parameters and results are float64 if any input is, otherwise float32, also for bfloat16
    and float16 inputs and under autocast. What lies between is float64. Measured against mpmath for
    d = 2 … 8192, κ = 0 … 1e6 and t = -1 … 1, over max(|exact|, 1): values and gradients within 1e-13 for
    float64 inputs and 2e-7 for float32 ones, whose norms may be off by their rounding.

    Devices without float64 (MPS) use the same formulas in float32. There log_prob is within 2e-6 of the
    larger of its parts |log p(μ)| and κ (1-t), the entropy within 3e-6 and the KL divergence to the uniform
    within 2e-6 over max(|exact|, 1), and that of two von Mises-Fisher within 5e-6 of its largest part.

    Raises ValueError for d < 2 and shapes that do not broadcast, and under validation for κ negative,
    infinite or NaN and for μ off the unit sphere; TypeError for tensors that are not floating-point.
    """

    def entropy(self) -> Tensor:
        """Differential entropy -E[log p], in nats, (*batch): -log p(μ) + κ (1 - A_d(κ)).

        Its gradient in κ is -κ A_d′(κ) <= 0.
        """
        kappa = self._working(self.kappa)
        return self._result(self._loss_of_mode(kappa) - _log_density_at_mode(kappa, self.dim))

    def _loss_of_mode(self, kappa: Tensor) -> Tensor:
        """E[log p(μ) - log p(z)]."""
        return kappa * bessel_ratio_complement(kappa, self._order)

    def _log_density(self, kappa: Tensor, value: Tensor) -> Tensor:
        return _log_density_at_mode(kappa, self.dim) - kappa * one_minus_cosine(self.mu, value)

    def _resultant_length(self, kappa: Tensor) -> Tensor:
        return bessel_ratio(kappa, self._order)

    def _variances(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        # E[1-t²]/(d-1) = A_d(κ)/κ by parts.
        return bessel_ratio_slope(kappa, self._order), bessel_ratio_over_x(kappa, self._order)

    def _cosine_halves(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        kappa = self._kappa_for_sampling().expand(sample_shape + self.batch_shape)
        device = self.kappa.device
        # float32 has a smaller range, and at zero the square root's gradient would be infinite.
        tiny = torch.finfo(working_dtype(device)).tiny
        part, rest = CosineHalves.apply(kappa, self.dim)
        return tuple(half.to(device, working_dtype(device)).clamp_min(tiny) for half in (part, rest))

    @property
    def _order(self) -> float:
        return self.dim / 2 - 1


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(p, q):
    """log area - H(p), in nats, written so that it is 0 at κ = 0 and never below it."""
    check_same_dim(p, q)
    kappa = p._working(p.kappa)
    kl = _nonnegative(-log_bessel(kappa, p._order) - p._loss_of_mode(kappa))
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return kl.expand(shape).to(result_dtype(p.mu.dtype, q.dtype))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmf_vmf(p, q):
    """log p(μ_p) - log q(μ_q) - (κ_p - κ_q) (1-A) + κ_q A (1 - μ_p·μ_q) with A = A_d(κ_p), in nats.

    Zero up to rounding where p and q are equal, and never below zero.
    """
    check_same_dim(p, q)
    kappa_p, kappa_q, order = p._working(p.kappa), p._working(q.kappa), p._order
    at_modes = log_bessel(kappa_q, order) - log_bessel(kappa_p, order)
    spread = (kappa_p - kappa_q) * bessel_ratio_complement(kappa_p, order)
    turn = kappa_q * bessel_ratio(kappa_p, order) * one_minus_cosine(p.mu, q.mu)
    return _nonnegative(at_modes - spread + turn).to(result_dtype(p.mu.dtype, q.mu.dtype))


def _nonnegative(kl: Tensor) -> Tensor:
    # Around its zero the value is quadratic and rounding can make it negative; the gradient has no such trouble.
    return with_value(kl.clamp_min(0), kl)
