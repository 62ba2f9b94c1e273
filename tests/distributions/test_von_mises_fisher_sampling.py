"""Samples of VonMisesFisher against its own summaries and against its integrated density."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, VonMisesFisher

CASES = [(2, 0.0), (2, 5.0), (2, 1e5), (3, 50.0), (5, 1e6), (16, 30.0), (64, 850.0), (2048, 850.0)]
COUNT = 20_000


def posterior_of(d, kappa):
    return VonMisesFisher(normalize(torch.randn(d, dtype=torch.float64), dim=-1), kappa)


def law_of_the_angle(d: int, kappa: float):
    """The distribution function of θ = arccos t, by the trapezoidal rule on e^(κ cos θ) sin(θ)^(d-2)."""
    spread = 1 / math.sqrt(kappa + d)
    mode = math.pi / 2 if kappa == 0 else math.acos((math.hypot(d - 2, 2 * kappa) - (d - 2)) / (2 * kappa))
    angle = np.linspace(max(0, mode - 12 * spread), min(math.pi, mode + 12 * spread), 100_001)
    with np.errstate(divide="ignore"):
        log_density = kappa * np.cos(angle) + (np.log(np.sin(angle)) * (d - 2) if d > 2 else 0)
    density = np.exp(log_density - log_density.max())
    cumulative = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return lambda theta: np.interp(theta, angle, cumulative / cumulative[-1])


@pytest.mark.parametrize("d, kappa", CASES)
def test_samples_follow_the_law_of_the_cosine(exact, d, kappa):
    posterior = posterior_of(d, kappa)
    count = COUNT if d < 1000 else 2000
    z = posterior.sample((count,))
    assert not z.requires_grad
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(count).double(), rtol=0, atol=1e-14)
    angle = 2 * torch.asin((z - posterior.mu).norm(dim=-1).clamp_max(2) / 2)
    assert scipy.stats.kstest(angle.numpy(), law_of_the_angle(d, kappa)).pvalue > 1e-3
    one_minus_t = 2 * torch.sin(angle / 2).square()
    expected = float(exact.von_mises_fisher(kappa, d).complement)
    error = 5 * one_minus_t.std().item() / count**0.5
    assert one_minus_t.mean().item() == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("d, kappa", [(2, 5.0), (3, 50.0), (8, 200.0), (16, 30.0)])
def test_samples_have_the_mean_and_the_variance(d, kappa):
    posterior = posterior_of(d, kappa)
    z = posterior.sample((COUNT,))
    standard_error = (posterior.variance / COUNT).sqrt()
    assert ((z.mean(0) - posterior.mean).abs() < 5 * standard_error).all()
    torch.testing.assert_close(z.var(0), posterior.variance, rtol=0.12, atol=0)
    t = z @ posterior.mu
    across = normalize(z - t[:, None] * posterior.mu, dim=-1)
    isotropic = (torch.eye(d).double() - torch.outer(posterior.mu, posterior.mu)) / (d - 1)
    torch.testing.assert_close(across.T @ across / COUNT, isotropic, rtol=0, atol=6 / (COUNT * d) ** 0.5)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (3, 50.0), (16, 0.5), (64, 850.0), (2, 1e4)])
def test_pathwise_gradient_in_kappa(exact, d, kappa):
    mu = normalize(torch.randn(d, dtype=torch.float64), dim=-1)
    kappas = torch.full((COUNT,), kappa, dtype=torch.float64, requires_grad=True)
    z = VonMisesFisher(mu, kappas).rsample()
    (slope,) = torch.autograd.grad((z @ mu).sum(), kappas, retain_graph=True)  # dt/dκ of each sample
    expected = float(exact.von_mises_fisher(kappa, d).slope)  # E[dt/dκ] = dE[t]/dκ
    error = 5 * slope.std().item() / COUNT**0.5
    assert slope.mean().item() == pytest.approx(expected, abs=error)
    assert error < 0.2 * expected  # else the line above could not fail
    # Of t² as well, which a gradient that were right on average alone would fail: E[t²] = 1 - (d-1) A/κ.
    (slope,) = torch.autograd.grad((z @ mu).square().sum(), kappas)
    reference = exact.von_mises_fisher(kappa, d)
    expected = float((d - 1) * (reference.resultant / kappa - reference.slope) / kappa)
    assert slope.mean().item() == pytest.approx(expected, abs=5 * slope.std().item() / COUNT**0.5)


def test_pathwise_gradient_in_mu_turns_the_sample_with_mu(exact):
    # E[c·z] = E[t] c·μ on the sphere, so along a tangent direction e the mean's slope is E[t] c·e.
    d, kappa = 6, 20.0
    mu, tangent = torch.eye(d, dtype=torch.float64)[:2]
    mus = mu.repeat(COUNT, 1).requires_grad_()
    z = VonMisesFisher(mus, kappa).rsample()
    (gradient,) = torch.autograd.grad((z @ tangent).sum(), mus)
    slope = gradient @ tangent
    expected = float(exact.von_mises_fisher(kappa, d).resultant)
    assert slope.mean().item() == pytest.approx(expected, abs=5 * slope.std().item() / COUNT**0.5)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (5, 8.0), (64, 850.0)])
def test_divergences_and_entropy_against_monte_carlo(d, kappa):
    posterior, uniform = posterior_of(d, kappa), HypersphericalUniform(d, dtype=torch.float64)
    other = VonMisesFisher(normalize(posterior.mu + 0.3 * posterior_of(d, 0.0).mu, dim=-1), kappa / 2)
    z = posterior.sample((COUNT,))
    log_prob = posterior.log_prob(z)
    for q in (uniform, other):
        ratio = log_prob - q.log_prob(z)
        error = 5 * ratio.std().item() / COUNT**0.5
        assert kl_divergence(posterior, q).item() == pytest.approx(ratio.mean().item(), abs=error)
    error = 5 * log_prob.std().item() / COUNT**0.5
    assert posterior.entropy().item() == pytest.approx(-log_prob.mean().item(), abs=error)


def test_samples_without_float64_keep_their_spread_where_t_rounds_to_one(without_float64):
    d, concentration = 3, 1e8
    mu = normalize(torch.randn(d), dim=-1).requires_grad_()
    kappa = torch.tensor(concentration, requires_grad=True)
    posterior = VonMisesFisher(mu, kappa)
    z = posterior.rsample((COUNT,))
    assert z.dtype == torch.float32
    assert posterior.support.check(z).all()
    one_minus_t = (z - mu).square().sum(-1) / 2
    assert one_minus_t.mean().item() == pytest.approx((d - 1) / (2 * concentration), rel=0.05)
    z.sum().backward()
    assert mu.grad.isfinite().all()
    assert kappa.grad.isfinite()


def test_samples_repeat_with_the_seed():
    posterior = posterior_of(16, 30.0)
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(posterior.sample((50,)))
    assert torch.equal(*draws)
