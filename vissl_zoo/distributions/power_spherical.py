"""The Power Spherical distribution, the posterior p(z|x) of VI-SimSiam.

Source: De Cao & Aziz 2020, "The Power Spherical distribution" (arXiv:2006.04437); Nakamura et al. 2023,
Eqs. 31-33. With t = μ·z, a = (d-1)/2 + κ and b = (d-1)/2,

    log p(z) = log C(κ) + κ log1p(t),
    log C(κ) = lnΓ(a+b) - lnΓ(a) - b log(4π) - κ log 2.

The two parts of log p carry +κ log 2 and -κ log 2. This file adds them before they are rounded:

    log p(z) = log p(μ) + κ log((1+t)/2),        log p(μ) = lnΓ(a+b) - lnΓ(a) - b log(4π).
"""

import math
from numbers import Number

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, constraints, register_kl
from torch.nn.functional import normalize

from vissl_zoo.distributions.hyperspherical_uniform import HypersphericalUniform, check_same_dim
from vissl_zoo.distributions.log_gamma import digamma_difference, log_gamma_ratio
from vissl_zoo.distributions.precision import outside_autocast, result_dtype, widen, with_value, working_dtype
from vissl_zoo.distributions.sphere import (
    broadcastable,
    check_pairable,
    checked_dim,
    log_half_one_plus_cosine,
    unit_sphere,
)


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


class PowerSpherical(Distribution):
    """Density proportional to (1 + μ·z)^κ on S^(d-1).

    Args:
        mu: (..., d) mean direction, unit vectors, d >= 2.
        kappa: (...) concentration >= 0, a tensor or a number; 0 is the uniform distribution. It
            broadcasts against mu's leading dimensions.
        validate_args: as in `torch.distributions`. False skips every check that reads data, and with
            them every wait of the host for the device; shapes are always checked.

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

    arg_constraints = {"mu": unit_sphere, "kappa": constraints.half_open_interval(0.0, math.inf)}
    support = unit_sphere
    has_rsample = True

    def __init__(self, mu: Tensor, kappa: Tensor | float, validate_args: bool | None = None):
        if mu.dim() < 1:
            raise ValueError("mu must have shape (..., d), got a scalar")
        self.dim = checked_dim(mu.shape[-1])
        if isinstance(kappa, Number):
            kappa = torch.full((), kappa, dtype=result_dtype(mu.dtype), device=mu.device)
        if not broadcastable(mu.shape[:-1], kappa.shape):
            raise ValueError(
                f"mu of shape {tuple(mu.shape)} and kappa of shape {tuple(kappa.shape)} do not broadcast: "
                "mu is (..., d) and kappa is (...)"
            )
        batch_shape = torch.broadcast_shapes(mu.shape[:-1], kappa.shape)
        dtype = result_dtype(mu.dtype, kappa.dtype)
        self.mu = _expand(widen(mu, dtype), (*batch_shape, self.dim))
        self.kappa = _expand(widen(kappa, dtype), batch_shape)
        super().__init__(batch_shape, torch.Size((self.dim,)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        """The same distribution with its batch dimensions expanded to `batch_shape`."""
        new = self._get_checked_instance(PowerSpherical, _instance)
        batch_shape = torch.Size(batch_shape)
        new.dim = self.dim
        new.mu = self.mu.expand(batch_shape + self.event_shape)
        new.kappa = self.kappa.expand(batch_shape)
        super(PowerSpherical, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_resultant_length(self) -> Tensor:
        """‖E[z]‖ = E[t] = κ / (d-1+κ), in [0, 1), (*batch)."""
        kappa = self._working(self.kappa)
        return self._result(kappa / (self.dim - 1 + kappa))

    @property
    def mean(self) -> Tensor:
        """E[z] = E[t] μ, inside the sphere, (*batch, d)."""
        mu, kappa = self._working(self.mu), self._working(self.kappa)
        return self._result((kappa / (self.dim - 1 + kappa)).unsqueeze(-1) * mu)

    @property
    def mode(self) -> Tensor:
        """μ, (*batch, d); at κ = 0 every point is a mode and this is one of them."""
        return self.mu

    @property
    def variance(self) -> Tensor:
        """Marginal variance of each coordinate, (*batch, d).

        Along μ it is Var[t], across μ it is E[1-t²]/(d-1). With s = d-1+κ and t = 2B-1, B ~ Beta(a, b),
        both are multiples of 4ab, so no small difference of large numbers appears:
        Var[t] = 4ab / (s²(s+1)) and E[1-t²] = 4ab / (s(s+1)).
        """
        mu, kappa = self._working(self.mu), self._working(self.kappa).unsqueeze(-1)
        surface = self.dim - 1
        s = surface + kappa
        scale = (surface + 2 * kappa) / (s * (s + 1))
        # A norm rounded up puts |μ_i| above 1; the clamp keeps that from turning a variance negative.
        across = ((1 - mu) * (1 + mu)).clamp_min(0)
        return self._result(scale * (surface / s * mu.square() + across))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), in nats, for `value` (..., d), as (...) broadcast with the batch.

        The gradient in μ is κ z / (1 + μ·z), hundreds of times the cosine's at the κ that training
        reaches. At the antipode both stay finite, with 1 + μ·z >= 1e-12 (see `log1p_cosine`).
        Raises ValueError for shapes that do not broadcast, and under validation for a `value` off the
        sphere. Source: Eq. 32.
        """
        check_pairable(self.mu, value)
        if self._validate_args:
            self._validate_sample(value)
        dtype = result_dtype(self.mu.dtype, value.dtype)
        relative = log_half_one_plus_cosine(self.mu, value)
        kappa = self._working(self.kappa)
        return (_log_density_at_mode(kappa, self.dim) + kappa * relative).to(dtype)

    def entropy(self) -> Tensor:
        """Differential entropy -E[log p], in nats, (*batch): -(log C(κ) + κ (log 2 + ψ(a) - ψ(a+b))).

        Its gradient in κ is κ (ψ′(a+b) - ψ′(a)) <= 0.
        """
        kappa, b = self._working(self.kappa), (self.dim - 1) / 2
        loss_of_mode = kappa * digamma_difference(b + kappa, b)
        return self._result(loss_of_mode - _log_density_at_mode(kappa, self.dim))

    def rsample(self, sample_shape=()) -> Tensor:
        """Samples (*sample_shape, *batch, d), differentiable in μ and κ.

        z = t μ + √(1-t²) v with t = B - (1-B), B ~ Beta(a, b), and v uniform on the sphere of μ's tangent
        space. B and 1-B are the two parts of one Dirichlet draw, so √(1-t²) = 2 √(B(1-B)) is as exact at
        large κ, where B rounds to 1, as elsewhere. v is Gaussian noise with its part along μ removed;
        the Householder reflection that De Cao & Aziz sample with is singular at one μ and this is not.
        """
        sample_shape = torch.Size(sample_shape)
        mu = normalize(self._working(self.mu), dim=-1)
        part, rest = self._beta_and_complement(sample_shape)
        noise = torch.randn(self._extended_shape(sample_shape), dtype=mu.dtype, device=mu.device)
        # Twice: where the noise happens to lie along μ (likely at d = 2) one pass leaves rounding behind.
        for _ in range(2):
            noise = normalize(noise - (noise * mu).sum(-1, keepdim=True) * mu, dim=-1)
        return self._result((part - rest) * mu + 2 * (part * rest).sqrt() * noise)

    def _beta_and_complement(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """B ~ Beta(a, b) and 1-B, each (*sample_shape, *batch, 1) in working precision."""
        dtype, device = working_dtype(self.kappa.device), self.kappa.device
        b = (self.dim - 1) / 2
        # The Dirichlet sampler and its gradient want float64 and, where that is missing, are missing too.
        kappa = self.kappa.to("cpu", torch.float64) if dtype == torch.float32 else self.kappa.to(dtype)
        concentration = torch.stack([b + kappa, torch.full_like(kappa, b)], dim=-1)
        draw = Dirichlet(concentration, validate_args=False).rsample(sample_shape)
        # At zero the square root's gradient would be infinite.
        draw = draw.to(device, dtype).clamp_min(torch.finfo(dtype).tiny)
        return draw[..., :1], draw[..., 1:]

    def _working(self, x: Tensor) -> Tensor:
        return x.to(working_dtype(x.device))

    def _result(self, x: Tensor) -> Tensor:
        return x.to(self.mu.dtype)


def _expand(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    # A leaf that already has the shape stays a leaf: copy.deepcopy refuses any other tensor with a graph.
    return x if x.shape == shape else x.expand(shape)


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
