"""What PowerSpherical and VonMisesFisher share: a density on the sphere that depends on z only through μ·z."""

import math
from abc import ABC, abstractmethod
from numbers import Number

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import normalize

from vissl_zoo.distributions.precision import result_dtype, widen, working_dtype
from vissl_zoo.distributions.sphere import broadcastable, check_pairable, checked_dim, unit_sphere


class RotationallySymmetric(Distribution, ABC):
    """A distribution on S^(d-1) that is symmetric about a mean direction μ, with a concentration κ.

    Args:
        mu: (..., d) mean direction, unit vectors, d >= 2.
        kappa: (...) concentration >= 0, a tensor or a number; 0 is the uniform distribution. It
            broadcasts against mu's leading dimensions.
        validate_args: as in `torch.distributions`. False skips every check that reads data, and with
            them every wait of the host for the device; shapes are always checked.

    A subclass gives `entropy`, the law of the cosine t = μ·z (`_log_density`, `_resultant_length`,
    `_variances` and `_cosine_halves`) and registers its KL divergences; this class has everything that
    follows from the symmetry. The underscored methods take and return working precision (float64 where
    the device has it); what is public is float32 or float64 (see `precision`).

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
        new = self._get_checked_instance(RotationallySymmetric, _instance)
        batch_shape = torch.Size(batch_shape)
        new.dim = self.dim
        new.mu = self.mu.expand(batch_shape + self.event_shape)
        new.kappa = self.kappa.expand(batch_shape)
        super(RotationallySymmetric, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_resultant_length(self) -> Tensor:
        """‖E[z]‖ = E[t], in [0, 1), (*batch)."""
        return self._result(self._resultant_length(self._working(self.kappa)))

    @property
    def mean(self) -> Tensor:
        """E[z] = E[t] μ, inside the sphere, (*batch, d)."""
        mu, kappa = self._working(self.mu), self._working(self.kappa)
        return self._result(self._resultant_length(kappa).unsqueeze(-1) * mu)

    @property
    def mode(self) -> Tensor:
        """μ, (*batch, d); at κ = 0 every point is a mode and this is one of them."""
        return self.mu

    @property
    def variance(self) -> Tensor:
        """Marginal variance of each coordinate, (*batch, d): Var[t] along μ and E[1-t²]/(d-1) across it."""
        mu = self._working(self.mu)
        along, across = self._variances(self._working(self.kappa).unsqueeze(-1))
        # A norm rounded up puts |μ_i| above 1; the clamp keeps that from turning a variance negative.
        return self._result(along * mu.square() + across * ((1 - mu) * (1 + mu)).clamp_min(0))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), in nats, for `value` (..., d), as (...) broadcast with the batch.

        Raises ValueError for shapes that do not broadcast, and under validation for a `value` off the
        sphere. The subclass's docstring has the formula and its gradient.
        """
        check_pairable(self.mu, value)
        if self._validate_args:
            self._validate_sample(value)
        dtype = result_dtype(self.mu.dtype, value.dtype)
        return self._log_density(self._working(self.kappa), value).to(dtype)

    def rsample(self, sample_shape=()) -> Tensor:
        """Samples (*sample_shape, *batch, d), differentiable in μ and κ.

        z = t μ + √(1-t²) v, with v uniform on the sphere of μ's tangent space. The halves (1+t)/2 and
        (1-t)/2 are sampled as a pair, so √(1-t²) is as exact at large κ, where t rounds to 1, as
        elsewhere. v is Gaussian noise with its part along μ removed; a Householder reflection that takes
        the first axis to μ, the usual way, is singular at one μ and this is not.
        """
        sample_shape = torch.Size(sample_shape)
        mu = normalize(self._working(self.mu), dim=-1)
        part, rest = (half.unsqueeze(-1) for half in self._cosine_halves(sample_shape))
        noise = torch.randn(self._extended_shape(sample_shape), dtype=mu.dtype, device=mu.device)
        # Twice: where the noise happens to lie along μ (likely at d = 2) one pass leaves rounding behind.
        for _ in range(2):
            noise = normalize(noise - (noise * mu).sum(-1, keepdim=True) * mu, dim=-1)
        return self._result((part - rest) * mu + 2 * (part * rest).sqrt() * noise)

    @abstractmethod
    def _log_density(self, kappa: Tensor, value: Tensor) -> Tensor:
        """log p(value) for κ (*batch) and value (..., d), as (...)."""

    @abstractmethod
    def _resultant_length(self, kappa: Tensor) -> Tensor:
        """E[t], in κ's shape."""

    @abstractmethod
    def _variances(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """(Var[t], E[1-t²]/(d-1)), each in κ's shape; small ones as precise as large ones."""

    @abstractmethod
    def _cosine_halves(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Samples of ((1+t)/2, (1-t)/2), each (*sample_shape, *batch), positive, differentiable in κ."""

    def _kappa_for_sampling(self) -> Tensor:
        # torch's gamma sampler and its gradient want float64; where that is missing so are they.
        dtype = working_dtype(self.kappa.device)
        return self.kappa.to("cpu", torch.float64) if dtype == torch.float32 else self.kappa.to(dtype)

    def _working(self, x: Tensor) -> Tensor:
        return x.to(working_dtype(x.device))

    def _result(self, x: Tensor) -> Tensor:
        return x.to(self.mu.dtype)


def _expand(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    # A leaf that already has the shape stays a leaf: copy.deepcopy refuses any other tensor with a graph.
    return x if x.shape == shape else x.expand(shape)
