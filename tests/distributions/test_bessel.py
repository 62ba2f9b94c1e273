from fractions import Fraction

import pytest
import torch

from vissl_zoo.distributions.bessel import (
    _debye_coefficients,
    bessel_ratio,
    bessel_ratio_complement,
    bessel_ratio_over_x,
    bessel_ratio_slope,
    log_bessel,
)

# Orders on both sides of 5 and 20, where the recurrence begins for the two precisions.
DIMS = (2, 3, 5, 11, 12, 16, 41, 42, 128, 512, 2048, 8192)
POINTS = (1e-3, 0.1, 1.0, 5.0, 20.0, 30.0, 120.0, 850.0, 1e4, 1e6)


@pytest.mark.parametrize(
    "dtype, log_bound, bound", [(torch.float64, 2e-14, 5e-13), (torch.float32, 2e-6, 1e-5)]
)
@pytest.mark.parametrize("d", DIMS)
def test_all_match_mpmath(exact, d, dtype, log_bound, bound):
    order, x = d / 2 - 1, torch.tensor(POINTS, dtype=dtype)
    computed = {
        "resultant": bessel_ratio(x, order),
        "complement": bessel_ratio_complement(x, order),
        "slope": bessel_ratio_slope(x, order),
    }
    for i, point in enumerate(x.tolist()):
        reference = exact.von_mises_fisher(point, d)
        assert exact.error(log_bessel(x, order)[i], reference.log_scaled) < log_bound, point
        for name, values in computed.items():
            # Relative to itself, however small: 1 - ratio and the slope go down to 5e-13 here.
            assert exact.error(values[i] / float(getattr(reference, name)), exact.mp.mpf(1)) < bound, name


def test_closed_forms_of_order_one_half():
    x = torch.logspace(-2, 3, 20, dtype=torch.float64)
    torch.testing.assert_close(log_bessel(x, 0.5), torch.log(-torch.expm1(-2 * x) / (2 * x)))
    torch.testing.assert_close(bessel_ratio(x, 0.5), 1 / torch.tanh(x) - 1 / x, rtol=1e-11, atol=0)


@pytest.mark.parametrize("order", [0.0, 0.5, 6.0, 63.0, 4095.0])
def test_at_zero_values_and_gradients_are_the_limits(order):
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    d = 2 * order + 2
    assert abs(log_bessel(x, order).item()) < 1e-16
    assert bessel_ratio(x, order).item() == 0
    assert bessel_ratio_over_x(x, order).item() == pytest.approx(1 / d, rel=1e-13)
    assert bessel_ratio_complement(x, order).item() == pytest.approx(1, rel=1e-13)
    assert bessel_ratio_slope(x, order).item() == pytest.approx(1 / d, rel=1e-13)
    (slope,) = torch.autograd.grad(log_bessel(x, order), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, x)
    assert slope.item() == pytest.approx(-1, rel=1e-13)
    assert curvature.item() == pytest.approx(1 / d, rel=1e-11)


@pytest.mark.parametrize(
    "function", [log_bessel, bessel_ratio, bessel_ratio_over_x, bessel_ratio_complement, bessel_ratio_slope]
)
def test_shapes_and_gradcheck(function):
    x = (10 * torch.rand(2, 3, dtype=torch.float64)).requires_grad_()
    assert function(x, 0.5).shape == (2, 3)
    assert function(x.float(), 0.5).dtype == torch.float32
    assert torch.autograd.gradcheck(lambda y: function(y, 0.5), (x,))
    assert torch.autograd.gradgradcheck(lambda y: function(y, 30.0), (x,))


@pytest.mark.parametrize("order", [0.0, 0.5, 3.0, 31.0, 1023.0])
def test_ratio_lies_between_the_bounds_of_amos(order):
    # Amos 1974, Eq. 16: x/(ν+½+√(x²+(ν+3/2)²)) < I_{ν+1}/I_ν < x/(ν+½+√(x²+(ν+½)²)).
    x = torch.logspace(-2, 4, 200, dtype=torch.float64)
    ratio = bessel_ratio(x, order)
    assert (ratio > x / (order + 0.5 + torch.hypot(x, torch.full_like(x, order + 1.5)))).all()
    assert (ratio < x / (order + 0.5 + torch.hypot(x, torch.full_like(x, order + 0.5)))).all()
    assert (ratio.diff() > 0).all()


def test_coefficients_are_those_in_the_books():
    rows = _debye_coefficients(5)
    # u_1 = (3p - 5p³)/24, and u_2 - u_1²/2 with u_2 = (81p² - 462p⁴ + 385p⁶)/1152.
    assert rows[0] == [Fraction(1, 8), Fraction(-5, 24)]
    assert rows[1] == [Fraction(1, 16), Fraction(-3, 8), Fraction(5, 16)]
    # At p = 1, which is x = 0, they are minus Stirling's.
    assert [sum(row) for row in rows] == [Fraction(-1, 12), 0, Fraction(1, 360), 0, Fraction(-1, 1260)]
