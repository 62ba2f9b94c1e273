import math

import pytest
import torch

from vissl_zoo.distributions.vmf_cosine import CosineHalves, cosine_slope


def halves(angle: float) -> list[torch.Tensor]:
    return [torch.tensor(f(angle / 2) ** 2, dtype=torch.float64) for f in (math.cos, math.sin)]


def slope_at(angle: float, kappa: float, d: int) -> float:
    return cosine_slope(torch.tensor(kappa, dtype=torch.float64), *halves(angle), d).item()


@pytest.mark.parametrize("quantile", [1e-9, 1e-3, 0.4, 0.9, 1 - 1e-6])
@pytest.mark.parametrize("kappa", [1e-2, 1.0, 30.0, 1e4])
def test_slope_on_the_ordinary_sphere_is_that_of_the_quantile(exact, kappa, quantile):
    mp = exact.mp

    def cosine(k):
        return 1 + mp.log(quantile + (1 - mp.mpf(quantile)) * mp.exp(-2 * k)) / k

    expected = float(mp.diff(cosine, mp.mpf(kappa)))
    angle = float(mp.acos(cosine(mp.mpf(kappa))))
    assert slope_at(angle, kappa, 3) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("d, kappa", [(2, 0.0), (2, 3.0), (2, 1e4), (5, 40.0), (64, 1.0), (2048, 850.0)])
def test_slope_matches_quadrature_on_either_side_of_the_mean(exact, d, kappa):
    mp = exact.mp
    ratio = exact.von_mises_fisher(kappa, d).resultant
    middle = mp.acos(ratio)
    spread = 1 / math.sqrt(kappa + d)
    for angle in (middle / 2 if d < 16 else middle - 2 * spread, middle, min(middle + 3 * spread, 3.1)):
        # ∫ over the whole lower side, whatever its sign does; the code takes the side that keeps one.
        start = max(mp.mpf(0), angle - 14 * spread)
        nodes = [start + (angle - start) * i / 16 for i in range(17)]

        def integrand(phi, angle=angle):
            weight = mp.exp(kappa * (mp.cos(phi) - mp.cos(angle))) * (mp.sin(phi) / mp.sin(angle)) ** (d - 2)
            return (mp.cos(phi) - ratio) * weight

        with mp.workdps(20):
            expected = mp.sin(angle) * mp.quad(integrand, nodes)
        assert slope_at(float(angle), kappa, d) == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("d", [2, 3, 512])
@pytest.mark.parametrize("kappa", [0.0, 1.0, 1e6])
def test_slope_is_finite_at_both_ends(d, kappa):
    tiny = torch.finfo(torch.float64).tiny
    part = torch.tensor([1.0, tiny, 1 - 1e-15], dtype=torch.float64)
    rest = torch.tensor([tiny, 1.0, 1e-15], dtype=torch.float64)
    slope = cosine_slope(torch.full_like(part, kappa), part, rest, d)
    assert slope.isfinite().all()
    assert (slope >= 0).all()


def test_halves_add_up_and_carry_one_gradient():
    kappa = torch.tensor([[0.0, 1e-3, 5.0], [1e3, 1e6, 1e12]], dtype=torch.float64, requires_grad=True)
    part, rest = CosineHalves.apply(kappa, 7)
    assert part.shape == rest.shape == kappa.shape
    torch.testing.assert_close((part + rest).detach(), torch.ones_like(kappa))
    assert 0 < rest[1, 2] < 1e-10  # where t itself is 1
    (gradient,) = torch.autograd.grad((part - rest).sum(), kappa, retain_graph=True)
    torch.testing.assert_close(gradient, cosine_slope(kappa, part, rest, 7).detach())
    (gradient,) = torch.autograd.grad((part + rest).sum(), kappa)
    assert torch.equal(gradient, torch.zeros_like(kappa))


def test_a_nan_ends():
    part, rest = CosineHalves.apply(torch.tensor([math.nan, 1.0], dtype=torch.float64), 4)
    assert part.isnan().tolist() == rest.isnan().tolist() == [True, False]
