"""The unit sphere S^(d-1): its constraint, its area, and the cosine of two of its points."""

import math
import operator

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.linalg import vecdot, vector_norm

from vissl_zoo.distributions.precision import outside_autocast, result_dtype, widen, with_value, working_dtype

# Below this cosine 1 + μ·z is taken from ½‖μ+z‖². Above it the dot product has lost at most one digit.
_NEAR_ANTIPODE = -0.9
# Above this cosine the float32 form takes 1 - μ·z from ½‖μ-z‖².
_NEAR_MODE = 0.5
# The least 1 + μ·z that log densities see: log p stays above -28.4 κ and its gradient below 1e12 κ.
_LEAST_ONE_PLUS_COSINE = 1e-12


class UnitSphere(constraints.Constraint):
    """Vectors (..., d) of Euclidean norm 1 ± `tolerance`; `check` returns (...) booleans.

    The default tolerance of 1 % admits a vector normalised in bfloat16, where rounding alone moves the
    norm by 0.4 %, also after it was cast to a wider dtype, and still refuses one that was never normalised.
    """

    event_dim = 1

    def __init__(self, tolerance: float = 1e-2):
        self.tolerance = tolerance
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """(..., d) -> (...): whether each vector is on the sphere; NaN and inf are not."""
        with outside_autocast(value.device):
            norm = vector_norm(value, dim=-1, dtype=result_dtype(value.dtype))
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


def log1p_cosine(mu: Tensor, z: Tensor) -> Tensor:
    """log(1 + μ·z) of unit vectors mu (..., d) and z (..., d), broadcast against each other, as (...).

    The result is in working precision, float64 where the device has it, so that κ times it and
    `log_normalizer` can be added before anything is rounded: cast the sum, not the pieces.

    Value: ½‖μ+z‖² replaces 1 + μ·z for μ·z < -0.9, and nothing is smaller than 1e-12. Gradient: that of
    1 + μ·z throughout, z / (1 + μ·z) for μ, finite at the exact antipode. float16 gradients saturate.
    Raises ValueError if the last dimensions differ or the others do not broadcast.
    Source: the alignment term of Eq. 33 (Nakamura et al. 2023).
    """
    return log_half_one_plus_cosine(mu, z) + math.log(2)


def log_half_one_plus_cosine(mu: Tensor, z: Tensor) -> Tensor:
    """log((1 + μ·z)/2) <= 0, zero at z = μ; otherwise `log1p_cosine`, which see.

    Multiplied by κ this is the log density relative to the mode's. The float32 form needs it whole: there
    log1p(μ·z) - log 2 would carry 3e-8, times κ, and so would the dot product itself. It therefore takes
    1 - μ·z from ½‖μ-z‖² when μ·z > 0.5, which keeps its relative precision (6e-8 · log-ratio) up to the
    mode, and which is blind to rounding in the norms where the dot product is not.
    """
    check_pairable(mu, z)
    with outside_autocast(mu.device):
        dtype = working_dtype(mu.device)
        mu, z = widen(mu, dtype), widen(z, dtype)
        # vecdot and vector_norm: products and squares of (..., d) written out cost ten times as long.
        one_plus_cosine = 1 + vecdot(mu, z)
        with torch.no_grad():
            from_sum = vector_norm(mu + z, dim=-1).square() / 2
            value = torch.where(one_plus_cosine < 1 + _NEAR_ANTIPODE, from_sum, one_plus_cosine)
            value = value.clamp_min(_LEAST_ONE_PLUS_COSINE)
        log_half = torch.log(with_value(value, one_plus_cosine) / 2)
        if dtype == torch.float32:
            with torch.no_grad():
                from_difference = torch.log1p(-vector_norm(mu - z, dim=-1).square().clamp_max(1) / 4)
                value = torch.where(one_plus_cosine > 1 + _NEAR_MODE, from_difference, log_half)
            log_half = with_value(value, log_half)
        return log_half


def one_minus_cosine(mu: Tensor, z: Tensor) -> Tensor:
    """1 - μ·z of unit vectors mu (..., d) and z (..., d), broadcast against each other, as (...).

    In working precision. The value is ½‖μ-z‖², which rounding in either norm by a factor 1+ε changes by that
    factor and no more; 1 - μ·z it changes by ε, however near the two are, and κ multiplies the result. The
    gradient is that of -μ·z, so -z for μ: no part of it pulls at the norm of μ alone.
    Raises ValueError if the last dimensions differ or the others do not broadcast.
    """
    check_pairable(mu, z)
    with outside_autocast(mu.device):
        dtype = working_dtype(mu.device)
        mu, z = widen(mu, dtype), widen(z, dtype)
        with torch.no_grad():
            value = vector_norm(mu - z, dim=-1).square() / 2
        return with_value(value, 1 - vecdot(mu, z))


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
