"""lnΓ(a+b) - lnΓ(a) and its derivative in a, to a few units in the last place of either precision.

Both arguments are first shifted up by 8 with lnΓ(x) = lnΓ(x+8) - Σ log(x+i). Stirling's series is then
good to 1e-14, and its large terms are subtracted on paper instead of in floating point:

    (A+b-½) log(A+b) - (A-½) log A - b  =  (A-½) log1p(b/A) + b (log(A+b) - 1),      A = a + 8.

Why not the difference of two torch.lgamma? Measured against mpmath for d = 2 … 8192, κ = 0 … 1e6, as the
largest error over max(|reference|, 1):

                                    float64               float32
                                 here    lgamma        here    lgamma
    value                        3e-15   2e-10         3e-7    1e-2
    1st derivative in a          3e-15   2e-15         2e-7    8e-7
    2nd derivative in a          4e-15   5e-10         1e-7    2e-7

lgamma grows like a log a while the difference grows like b log a, so digits cancel; torch.polygamma(1)
truncates its series early. One form serves both precisions. It costs 0.24 ms instead of 0.05 ms for 512 κ
with their gradient on one CPU core, and torch.compile fuses it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_SHIFT = 8
# B_2k / (2k (2k-1)), the coefficients of x^(1-2k) in Stirling's series of lnΓ. The first one left out,
# 1/156 x^-13, is below 1e-14 for x >= 8.5.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def log_gamma_ratio(a: Tensor, b: float) -> Tensor:
    """lnΓ(a+b) - lnΓ(a) for a > 0 and b > 0, same shape and dtype as `a`, differentiable in `a`.

    Reference: Abramowitz & Stegun 6.1.15 (recurrence) and 6.1.41 (Stirling's series).
    """
    shifted = a + _SHIFT
    steps = torch.log1p(b / _shifts(a)).sum(-1)
    leading = (shifted - 0.5) * torch.log1p(b / shifted) + b * (torch.log(shifted + b) - 1)
    return leading + _difference(_stirling, shifted, b) - steps


def digamma_difference(a: Tensor, b: float) -> Tensor:
    """ψ(a+b) - ψ(a) for a > 0 and b > 0, same shape and dtype as `a`, differentiable in `a`.

    The derivative of `log_gamma_ratio` in `a`, simplified by hand: apart from the series' small
    correction every term is positive, so nothing cancels.
    """
    shifted = a + _SHIFT
    shifts = _shifts(a)
    steps = (b / (shifts * (shifts + b))).sum(-1)
    leading = torch.log1p(b / shifted) + b / (2 * shifted * (shifted + b))
    return leading + _difference(_stirling_slope, shifted, b) + steps


def _shifts(a: Tensor) -> Tensor:
    """a, a+1, …, a+7 along a new last dimension: (...) -> (..., 8)."""
    return a.unsqueeze(-1) + torch.arange(_SHIFT, dtype=a.dtype, device=a.device)


def _difference(series: Callable[[Tensor], Tensor], x: Tensor, b: float) -> Tensor:
    """series(x + b) - series(x), in one go: of a few hundred κ most of the time goes into starting operations."""
    above, below = series(torch.stack([x + b, x])).unbind()
    return above - below


def _stirling(x: Tensor) -> Tensor:
    """lnΓ(x) - [(x-½) log x - x + ½ log 2π], by Horner's rule in 1/x²."""
    inverse = 1 / x
    return inverse * _polynomial(inverse.square(), _STIRLING)


def _stirling_slope(x: Tensor) -> Tensor:
    """The derivative of `_stirling`."""
    inverse_square = x.square().reciprocal()
    return -inverse_square * _polynomial(inverse_square, [(2 * k + 1) * c for k, c in enumerate(_STIRLING)])


def _polynomial(x: Tensor, coefficients) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
