"""Exact references in 40 digits, from the textbook formulas and not from the forms that the room computes."""

import math
from types import SimpleNamespace

import mpmath as mp
import pytest
import torch

mp.mp.dps = 40


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _validate():
    # Importing torch's compiler turns validation off by default, for the rest of the process.
    torch.distributions.Distribution.set_default_validate_args(True)


@pytest.fixture
def without_float64(monkeypatch):
    """Pretend that the vectors' device has no float64, as MPS has not."""
    monkeypatch.setattr("vissl_zoo.distributions.precision.WITHOUT_FLOAT64", {"cpu"})
    return monkeypatch


def power_spherical(kappa: float, d: int) -> SimpleNamespace:
    """Each quantity as [value, first, second derivative in κ]."""
    kappa, b = mp.mpf(kappa), mp.mpf(d - 1) / 2
    a = kappa + b
    log_c = -((a + b) * mp.log(2) + mp.loggamma(a) - mp.loggamma(a + b) + b * mp.log(mp.pi))
    psi = [mp.psi(n, a + b) - mp.psi(n, a) for n in range(3)]
    entropy = -(log_c + kappa * (mp.log(2) - psi[0]))
    return SimpleNamespace(
        log_normalizer=[log_c, psi[0] - mp.log(2), psi[1]],
        log_density_at_mode=log_c + kappa * mp.log(2),
        entropy=[entropy, kappa * psi[1], psi[1] + kappa * psi[2]],
        kl=[log_area(d) - entropy, -kappa * psi[1], -psi[1] - kappa * psi[2]],
        resultant=kappa / (d - 1 + kappa),
    )


def von_mises_fisher(kappa: float, d: int) -> SimpleNamespace:
    """Each quantity as [value, first, second derivative in κ], and four that belong to Bessel functions."""
    kappa, order = mp.mpf(kappa), mp.mpf(d) / 2 - 1
    if kappa == 0:
        log_scaled, ratio, slope, curve = mp.mpf(0), mp.mpf(0), 1 / mp.mpf(d), mp.mpf(0)
    else:
        scaled = scaled_bessel(order, kappa)
        log_scaled = mp.log(scaled) + mp.loggamma(order + 1) - order * mp.log(kappa / 2)
        ratio = scaled_bessel(order + 1, kappa) / scaled
        slope = 1 - ratio**2 - (d - 1) * ratio / kappa
        curve = -2 * ratio * slope - (d - 1) * (slope / kappa - ratio / kappa**2)
    log_at_mode = -log_area(d) - log_scaled
    entropy = kappa * (1 - ratio) - log_at_mode
    return SimpleNamespace(
        log_normalizer=[log_at_mode - kappa, -ratio, -slope],
        log_density_at_mode=log_at_mode,
        entropy=[entropy, -kappa * slope, -slope - kappa * curve],
        kl=[-log_scaled - kappa * (1 - ratio), kappa * slope, slope + kappa * curve],
        resultant=ratio,
        log_scaled=log_scaled,
        complement=1 - ratio,
        slope=slope,
    )


def scaled_bessel(order, x):
    """e^-x I_order(x): the power series and, where it takes too many terms, Hankel's expansion."""
    if x <= 10_000:
        return mp.exp(-x) * mp.besseli(order, x, maxterms=10**6)
    with mp.workdps(60):  # it alternates: at order 4095 and x = 1e6 four digits cancel
        term, total, k = mp.mpf(1), mp.mpf(1), 0
        while abs(term) > mp.eps * abs(total) or k < 5:
            k += 1
            term *= ((2 * k - 1) ** 2 - 4 * order**2) / (8 * k * x)
            total += term
        return total / mp.sqrt(2 * mp.pi * x)


def log_area(d: int):
    return mp.log(2) + mp.mpf(d) / 2 * mp.log(mp.pi) - mp.loggamma(mp.mpf(d) / 2)


def cosine(mu, z, normalised=False):
    """The exact dot product of two vectors of floats; `normalised` divides their exact norms out."""
    mu, z = mu.detach().tolist(), z.detach().tolist()
    dot = mp.fdot(mu, z)
    return dot / mp.sqrt(mp.fdot(mu, mu) * mp.fdot(z, z)) if normalised else dot


def pair(d: int, t: float, dtype=torch.float64):
    """Random unit vectors (d,), (d,) with cosine t."""
    mu = torch.nn.functional.normalize(torch.randn(d, dtype=torch.float64), dim=0)
    across = torch.randn(d, dtype=torch.float64)
    across = torch.nn.functional.normalize(across - (across @ mu) * mu, dim=0)
    return mu.to(dtype), (t * mu + math.sqrt((1 - t) * (1 + t)) * across).to(dtype)


def error(computed, reference, *scales) -> float:
    """|computed - reference| over the largest of |reference|, 1 and `scales`."""
    scale = max(1, abs(reference), *map(abs, scales)) if scales else max(1, abs(reference))
    return float(abs(mp.mpf(computed.item()) - reference) / scale)


def derivatives(value, x, order: int) -> list:
    """[value, d value/dx, …] by repeated autograd."""
    series = [value]
    for _ in range(order):
        series.append(torch.autograd.grad(series[-1], x, create_graph=True)[0])
    return [term.detach() for term in series]


@pytest.fixture
def exact():
    return SimpleNamespace(
        mp=mp,
        power_spherical=power_spherical,
        von_mises_fisher=von_mises_fisher,
        log_area=log_area,
        cosine=cosine,
        pair=pair,
        error=error,
        derivatives=derivatives,
    )
