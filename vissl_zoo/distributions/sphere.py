"""The unit sphere S^(d-1): its constraint, its area, and the cosine of two of its points."""

import math
import operator

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.linalg import vecdot, vector_norm

from vissl_zoo.distributions.precision import result_dtype, wide


class UnitSphere(constraints.Constraint):
    """Vectors (..., d) of Euclidean norm 1 ± `tolerance`; `check` returns (...) booleans.

    The default of 1 % admits a vector that was normalised in bfloat16, whose rounding moves the norm by 0.4 %. It
    still refuses one that was never normalised.
    """

    event_dim = 1

    def __init__(self, tolerance: float = 1e-2):
        self.tolerance = tolerance
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(..., d) -> (...): whether each vector is on the sphere; NaN and inf are not."""
        norm = vector_norm(value.to(result_dtype(value.dtype)), dim=-1)
        return (norm - 1).abs() <= self.tolerance

    def __repr__(self):
        return f"UnitSphere(tolerance={self.tolerance})"


unit_sphere = UnitSphere()


def checked_dim(dim: int) -> int:
    """`dim` as an int; ValueError below 2, where a sphere has no directions; TypeError for a non-integer."""
    dim = operator.index(dim)
    if dim < 2:
        raise ValueError(f"the ambient dimension must be at least 2, got {dim}")
    return dim


def log_area(dim: int) -> float:
    """log of the surface area of S^(dim-1), 2 π^(dim/2) / Γ(dim/2)."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def one_plus_cosine(mu: Tensor, z: Tensor, least: float = 0.0) -> Tensor:
    """1 + μ·z >= `least`, as (...), of unit vectors mu (..., d) and z (..., d) that broadcast; float64.

    The value is ½‖μ+z‖², which keeps its digits next to the antipode. The gradient is that of μ·z, so z for μ: no
    part of it pulls at the norm of μ alone.

    Raises ValueError if the last dimensions differ or the others do not broadcast.
    """
    check_pairable(mu, z)
    mu, z = wide(mu), wide(z)
    cosine = vecdot(mu, z)
    with torch.no_grad():
        value = (vector_norm(mu + z, dim=-1).square() / 2).clamp_min(least)
    return value + (cosine - cosine.detach())


def check_pairable(mu: Tensor, z: Tensor) -> None:
    """ValueError unless (..., d) and (..., d) have one d and broadcast; reads shapes only, never data."""
    same_dim = mu.dim() > 0 and z.dim() > 0 and mu.shape[-1] == z.shape[-1]
    if not (same_dim and broadcastable(mu.shape[:-1], z.shape[:-1])):
        raise ValueError(
            f"vectors of shapes {tuple(mu.shape)} and {tuple(z.shape)} do not pair: expected (..., d) twice"
        )


def broadcastable(left: torch.Size, right: torch.Size) -> bool:
    """Whether two shapes broadcast against each other."""
    return all(m == n or m == 1 or n == 1 for m, n in zip(reversed(left), reversed(right), strict=False))
