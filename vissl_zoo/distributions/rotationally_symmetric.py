"""What PowerSpherical and VonMisesFisher share: a density on the sphere that depends on z only through t = μ·z."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import normalize

from vissl_zoo.distributions.precision import result_dtype, scalars, wide
from vissl_zoo.distributions.sphere import broadcastable, check_pairable, checked_dim, log_area, unit_sphere


class RotationallySymmetric(Distribution, ABC):
    """A distribution on S^(d-1) that is symmetric about a mean direction μ, with a concentration κ.

    Args:
        mu: (..., d) mean direction, unit vectors, d >= 2.
        kappa: (...) concentration >= 0, a tensor or a number; 0 is the uniform distribution. It broadcasts against
            mu's leading dimensions.
        validate_args: as in `torch.distributions`. False skips every check that reads data, and with them every
            wait of the host for the device; shapes are always checked.

    Parameters and results are float64 if any input is, otherwise float32, also under autocast. What lies between is
    float64, for which κ goes to the CPU where the device has none (MPS); there μ·z is float32's, so log p is within
    κ·1e-6 nats. The underscored methods take κ in float64 and return float64.

    Raises ValueError for d < 2 and shapes that do not broadcast, and under validation for κ negative, infinite or NaN
    and for μ off the unit sphere; TypeError for tensors that are not floating-point.
    """

    arg_constraints = {  # pyright: ignore[reportAssignmentType] (torch has a property, and overrides it so)
        "mu": unit_sphere,
        "kappa": constraints.half_open_interval(0.0, math.inf),
    }
    support = unit_sphere  # pyright: ignore[reportAssignmentType]
    has_rsample = True

    def __init__(self, mu: Tensor, kappa: Tensor | float, validate_args: bool | None = None):
        if mu.dim() < 1:
            raise ValueError("mu must have shape (..., d), got a scalar")
        self.dim = checked_dim(mu.shape[-1])
        if not isinstance(kappa, Tensor):
            kappa = torch.full((), kappa, dtype=result_dtype(mu.dtype), device=mu.device)
        if not broadcastable(mu.shape[:-1], kappa.shape):
            raise ValueError(
                f"mu of shape {tuple(mu.shape)} and kappa of shape {tuple(kappa.shape)} do not broadcast: "
                "mu is (..., d) and kappa is (...)"
            )
        batch_shape = torch.broadcast_shapes(mu.shape[:-1], kappa.shape)
        dtype = result_dtype(mu.dtype, kappa.dtype)
        self.mu = _expand(mu.to(dtype), (*batch_shape, self.dim))
        self.kappa = _expand(kappa.to(dtype), batch_shape)
        super().__init__(batch_shape, torch.Size((self.dim,)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        """The same distribution with its batch dimensions expanded to `batch_shape`."""
        new: Any = self._get_checked_instance(RotationallySymmetric, _instance)
        batch_shape = torch.Size(batch_shape)
        new.dim = self.dim
        new.mu = self.mu.expand(batch_shape + self.event_shape)
        new.kappa = self.kappa.expand(batch_shape)
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean_resultant_length(self) -> Tensor:
        """‖E[z]‖ = E[t], in [0, 1), (*batch)."""
        return self._result(self._mean_cosine(scalars(self.kappa)))

    @property
    def mean(self) -> Tensor:
        """E[z] = E[t] μ, inside the sphere, (*batch, d)."""
        return self.mean_resultant_length.unsqueeze(-1) * self.mu

    @property
    def mode(self) -> Tensor:
        """μ, (*batch, d); at κ = 0 every point is a mode and this is one of them."""
        return self.mu

    @property
    def variance(self) -> Tensor:
        """Marginal variance of each coordinate, (*batch, d): Var[t] along μ and E[1-t²]/(d-1) across it."""
        along, across = (self._result(x).unsqueeze(-1) for x in self._variances(scalars(self.kappa)))
        # A norm rounded up puts |μ_i| above 1; the clamp keeps that from turning a variance negative.
        return along * self.mu.square() + across * ((1 - self.mu) * (1 + self.mu)).clamp_min(0)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z), in nats, for `value` (..., d), as (...) broadcast with the batch.

        Raises ValueError for shapes that do not broadcast, and under validation for a `value` off the sphere.
        """
        check_pairable(self.mu, value)
        if self._validate_args:
            self._validate_sample(value)
        dtype = result_dtype(self.mu.dtype, value.dtype)
        return self._log_density(scalars(self.kappa), value).to(dtype).to(self.mu.device)

    def entropy(self) -> Tensor:
        """Differential entropy -E[log p], in nats, (*batch)."""
        return self._result(self._entropy(scalars(self.kappa)))

    def rsample(self, sample_shape=()) -> Tensor:
        """Samples (*sample_shape, *batch, d), differentiable in μ and κ: z = t μ + √(1-t²) v.

        v is uniform on the sphere of μ's tangent space: Gaussian noise with its part along μ removed. A Householder
        reflection that takes the first axis to μ, the usual way, is singular at one μ, and this is not.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        kappa = scalars(self.kappa).expand(shape[:-1])
        mu = normalize(wide(self.mu), dim=-1)
        drawn = self._sample_cosine_and_sine(kappa)
        t, sine = (x.unsqueeze(-1).to(mu.dtype).to(mu.device) for x in drawn)
        noise = torch.randn(shape, dtype=mu.dtype, device=mu.device)
        # Twice: where the noise happens to lie along μ (likely at d = 2) one pass leaves rounding behind.
        for _ in range(2):
            noise = normalize(noise - (noise * mu).sum(-1, keepdim=True) * mu, dim=-1)
        return self._result(t * mu + sine * noise)

    def _kl_to_uniform(self) -> Tensor:
        return self._result(nonnegative(log_area(self.dim) - self._entropy(scalars(self.kappa))))

    def _result(self, x: Tensor) -> Tensor:
        return x.to(self.mu.dtype).to(self.mu.device)  # in this order: no float64 goes to a device without

    @abstractmethod
    def _log_density(self, kappa: Tensor, z: Tensor) -> Tensor:
        """log p(z) for κ (*batch) and z (..., d), as (...)."""

    @abstractmethod
    def _entropy(self, kappa: Tensor) -> Tensor:
        """-E[log p], in κ's shape."""

    @abstractmethod
    def _mean_cosine(self, kappa: Tensor) -> Tensor:
        """E[t], in κ's shape."""

    @abstractmethod
    def _variances(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """Var[t] and E[1-t²]/(d-1), each in κ's shape."""

    @abstractmethod
    def _sample_cosine_and_sine(self, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """Samples of t and √(1-t²) > 0, in κ's shape, differentiable in κ."""


def nonnegative(kl: Tensor) -> Tensor:
    """A KL divergence without what rounding may have taken it below zero by; its gradient is left as it is."""
    return kl - kl.detach().clamp_max(0)


def _expand(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    # A leaf that already has the shape stays a leaf: copy.deepcopy refuses any other tensor with a graph.
    return x if x.shape == shape else x.expand(shape)
