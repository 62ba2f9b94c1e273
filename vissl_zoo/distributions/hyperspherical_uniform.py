"""The uniform distribution on the unit sphere, the prior p(z) of Table 1."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vissl_zoo.distributions.precision import result_dtype, wide
from vissl_zoo.distributions.sphere import checked_dim, log_area, unit_sphere


class HypersphericalUniform(Distribution):
    """Uniform on S^(dim-1) = {z in R^dim : ‖z‖ = 1}; `dim` is the ambient dimension.

    Args:
        dim: d >= 2.
        batch_shape: shape of a batch of identical, independent distributions.
        dtype: of the results; the default is torch's. Half precision gives float32.
        device: where samples are drawn; the default is torch's.
        validate_args: as in `torch.distributions`.

    Event shape (d,). The density is one over the area, Γ(d/2) / (2 π^(d/2)). There is no mode.
    Raises ValueError for dim < 2, TypeError for a dtype that is not floating-point.
    """

    arg_constraints = {}  # pyright: ignore[reportAssignmentType] (torch has a property, and overrides it so)
    support = unit_sphere  # pyright: ignore[reportAssignmentType]
    has_rsample = True  # there is no parameter, so a sample is trivially differentiable in them

    def __init__(self, dim: int, batch_shape=(), dtype=None, device=None, validate_args=None):
        self.dim = checked_dim(dim)
        self.dtype = result_dtype(dtype or torch.get_default_dtype())
        self.device = torch.empty(0, device=device).device
        super().__init__(torch.Size(batch_shape), torch.Size((self.dim,)), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        """The same distribution with another batch shape."""
        new: Any = self._get_checked_instance(HypersphericalUniform, _instance)
        new.dim, new.dtype, new.device = self.dim, self.dtype, self.device
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Zeros, (*batch, d)."""
        return self._constant(0.0, self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """Marginal variance of each coordinate, 1/d, (*batch, d)."""
        return self._constant(1 / self.dim, self._extended_shape())

    def rsample(self, sample_shape=()) -> Tensor:
        """Samples (*sample_shape, *batch, d): normalised Gaussian noise (Muller 1959)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = wide(torch.randn(shape, dtype=self.dtype, device=self.device))
        return torch.nn.functional.normalize(noise, dim=-1).to(self.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the log of the area, in nats, for `value` (..., d), as (...) broadcast with the batch.

        Raises ValueError under validation for a wrong shape or a `value` off the sphere.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        dtype = result_dtype(self.dtype, value.dtype)
        return torch.full(shape, -log_area(self.dim), dtype=dtype, device=value.device)

    def entropy(self) -> Tensor:
        """The log of the area, in nats, (*batch)."""
        return self._constant(log_area(self.dim), self.batch_shape)

    def _kl_to_uniform(self) -> Tensor:
        return self._constant(0.0, self.batch_shape)

    def _constant(self, value: float, shape: torch.Size) -> Tensor:
        return torch.full(shape, value, dtype=self.dtype, device=self.device)

    def __repr__(self):
        return f"HypersphericalUniform(dim: {self.dim}, batch_shape: {self.batch_shape})"


def kl_to_uniform(p: Any, q: HypersphericalUniform) -> Tensor:
    """KL divergence to the uniform distribution, log area - H(p) >= 0, in nats, broadcast over both batches.

    Raises ValueError for distributions on different spheres.
    """
    if p.event_shape != q.event_shape:
        raise ValueError(f"KL between distributions on different spheres: {p} and {q}")
    kl = p._kl_to_uniform()
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return kl.expand(shape).to(result_dtype(kl.dtype, q.dtype))


register_kl(HypersphericalUniform, HypersphericalUniform)(kl_to_uniform)
