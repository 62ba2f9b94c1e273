"""The von Mises-Fisher distribution, the posterior p(z|x) of SimSiam and SimCLR in Table 1.

Mardia & Jupp 2000, "Directional Statistics", §9.3; Nakamura et al. 2023, §4.1. With t = μ·z = cos θ,

    log p(z) = log C(κ) + κ t,      1 / C(κ) = area(S^(d-2)) ∫ e^(κ cos θ) sin(θ)^(d-2) dθ.

The integral is a sum over Gauss-Legendre nodes around the angle's mode, and so are the moments of t. It needs no Bessel
function, serves every d and κ alike, and its derivatives in κ are right by themselves.
"""

import math

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.distributions import Beta, register_kl

from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform, kl_to_uniform
from vissl_zoo.distributions.precision import scalars
from vissl_zoo.distributions.rotationally_symmetric import RotationallySymmetric, nonnegative
from vissl_zoo.distributions.sphere import log_area, one_plus_cosine

_NODES, _WEIGHTS = (x.tolist() for x in leggauss(64))
_REACH = 12.0  # half the width of the integral, in standard deviations of the angle


class VonMisesFisher(RotationallySymmetric):
    """Density proportional to e^(κ μ·z) on S^(d-1); the arguments are RotationallySymmetric's.

    The gradient of log p(z) in μ is κ z. `rsample` waits for the device once a round of rejections (Wood 1994); its
    gradient in κ is implicit (Figurnov et al. 2018).
    """

    def _log_density(self, kappa: Tensor, z: Tensor) -> Tensor:
        """log C(κ) + κ μ·z, the part κ of both taken out: 1 - μ·z is ½‖μ-z‖², blind to rounded norms."""
        log_mass = self._law(kappa)[2]
        return -log_area(self.dim - 1) - log_mass - kappa * scalars(one_plus_cosine(-self.mu, z))

    def _entropy(self, kappa: Tensor) -> Tensor:
        angle, share, log_mass = self._law(kappa)
        loss_of_mode = 2 * kappa * (share * torch.sin(angle / 2).square()).sum(-1)
        return log_area(self.dim - 1) + log_mass + loss_of_mode

    def _mean_cosine(self, kappa: Tensor) -> Tensor:
        angle, share, _ = self._law(kappa)
        return (share * angle.cos()).sum(-1)

    def _variances(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        angle, share, _ = self._law(kappa)
        mean = (share * angle.cos()).sum(-1, keepdim=True)
        along = (share * (angle.cos() - mean).square()).sum(-1)
        return along, (share * angle.sin().square()).sum(-1) / (self.dim - 1)

    def _sample_cosine_and_sine(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """θ by rejection, and its slope -(∂F/∂κ) / p(θ) at fixed F(θ), F the distribution function of θ."""
        angle = torch.acos(_sample_cosine(kappa.detach(), self.dim))
        if kappa.requires_grad:
            low, _ = self._window(kappa)
            log_mass = self._law(kappa)[2]
            nodes, weights = _between(low, angle)
            below = (weights * torch.exp(self._log_height(nodes, kappa) - log_mass.unsqueeze(-1))).sum(-1)
            height = torch.exp(self._log_height(angle.unsqueeze(-1), kappa)[..., 0] - log_mass).detach()
            angle = angle - (below - below.detach()) / height.clamp_min(torch.finfo(height.dtype).tiny)
        return angle.cos(), angle.sin()

    def _law(self, kappa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Angles (..., n), the share of the mass that each stands for (..., n), and the log of the mass (...)."""
        nodes, weights = _between(*self._window(kappa))
        log_parts = weights.log() + self._log_height(nodes, kappa)
        return nodes, torch.softmax(log_parts, dim=-1), torch.logsumexp(log_parts, dim=-1)

    def _log_height(self, angle: Tensor, kappa: Tensor) -> Tensor:
        """log of e^(κ (cos θ - 1)) sin(θ)^(d-2) for angles (..., n) and κ (...)."""
        height = -2 * kappa.unsqueeze(-1) * torch.sin(angle / 2).square()
        return height + (self.dim - 2) * torch.log(torch.sin(angle)) if self.dim > 2 else height

    def _window(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """The angles (...) between which all the mass lies; no gradient, since the integral does not feel them."""
        kappa, power = kappa.detach().clamp_min(1e-6), self.dim - 2
        cosine = 2 * kappa / (power + torch.hypot(2 * kappa, torch.full_like(kappa, power)))  # at the mode
        curvature = kappa * cosine + (kappa / cosine if power else 0)
        mode, width = torch.acos(cosine), _REACH / curvature.sqrt()
        return (mode - width).clamp_min(0), (mode + width).clamp_max(math.pi)


def _between(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights (..., n) of the integral from `low` to `high` (...)."""
    nodes, weights = (torch.tensor(x, dtype=low.dtype, device=low.device) for x in (_NODES, _WEIGHTS))
    half, middle = ((high - low) / 2).unsqueeze(-1), ((high + low) / 2).unsqueeze(-1)
    return middle + half * nodes, half * weights


def _sample_cosine(kappa: Tensor, dim: int) -> Tensor:
    """Samples of t (...) for κ (...): Beta proposals, rejected as Wood (1994) does; a NaN is let through."""
    surface = dim - 1
    beta = surface / (2 * kappa + torch.hypot(2 * kappa, torch.full_like(kappa, surface)))
    t0 = (1 - beta) / (1 + beta)
    law = Beta(torch.full_like(kappa, surface / 2), torch.full_like(kappa, surface / 2), validate_args=False)
    t, pending = torch.zeros_like(kappa), torch.ones_like(kappa, dtype=torch.bool)
    while pending.any():
        part = law.sample()
        new = (part - beta * (1 - part)) / (part + beta * (1 - part))
        slack = kappa * (new - t0) + surface * torch.log((1 - t0 * new) / (1 - t0.square()))
        t = torch.where(pending, new, t)
        pending = pending & (torch.rand_like(t).log() > slack)
    return t


register_kl(VonMisesFisher, HypersphericalUniform)(kl_to_uniform)


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_of_two(p, q):
    """-H(p) - E_p[log q], in nats, where E_p[log q] = log q(μ_p) - κ_q (1 - E_p[t]) μ_p·μ_q."""
    kappa_p, kappa_q = scalars(p.kappa), scalars(q.kappa)
    cosine = 1 - scalars(one_plus_cosine(-p.mu, q.mu))
    loss_of_mode = kappa_q * (1 - p._mean_cosine(kappa_p)) * cosine
    return p._result(nonnegative(loss_of_mode - p._entropy(kappa_p) - q._log_density(kappa_q, p.mu)))
