"""Samples of PowerSpherical against its own summaries and against scipy."""

import math

import pytest
import scipy.stats
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical

CASES = [(2, 0.0), (2, 5.0), (3, 50.0), (5, 1e6), (16, 30.0), (64, 850.0)]
COUNT = 20_000


def posterior_of(d, kappa):
    return PowerSpherical(normalize(torch.randn(d, dtype=torch.float64), dim=-1), kappa)


@pytest.mark.parametrize("d, kappa", CASES)
def test_samples_follow_mean_variance_and_the_law_of_the_cosine(d, kappa):
    posterior = posterior_of(d, kappa)
    z = posterior.sample((COUNT,))
    assert not z.requires_grad
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(COUNT).double(), rtol=0, atol=1e-14)
    standard_error = (posterior.variance / COUNT).sqrt()
    assert ((z.mean(0) - posterior.mean).abs() < 5 * standard_error).all()
    torch.testing.assert_close(z.var(0), posterior.variance, rtol=0.12, atol=0)
    t = z @ posterior.mu
    assert t.mean().item() == pytest.approx(
        posterior.mean_resultant_length.item(), abs=5 * t.std().item() / COUNT**0.5
    )
    law = scipy.stats.beta((d - 1) / 2 + kappa, (d - 1) / 2)
    assert scipy.stats.kstest((1 + t.numpy()) / 2, law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("d, kappa", [(3, 4.0), (8, 200.0)])
def test_the_part_across_mu_is_isotropic(d, kappa):
    posterior = posterior_of(d, kappa)
    z = posterior.sample((COUNT,))
    t = z @ posterior.mu
    across = normalize(z - t[:, None] * posterior.mu, dim=-1)
    covariance = across.T @ across / COUNT
    expected = (torch.eye(d).double() - torch.outer(posterior.mu, posterior.mu)) / (d - 1)
    torch.testing.assert_close(covariance, expected, rtol=0, atol=6 / math.sqrt(COUNT) / d**0.5)


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_samples_on_the_circle_fall_on_both_sides_of_every_axis(axis, direction):
    mu = torch.zeros(2, dtype=torch.float64)
    mu[axis] = direction
    z = PowerSpherical(mu, 2.0).sample((4000,))
    assert (z[:, 1 - axis] > 0).double().mean().item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (3, 50.0), (16, 0.5), (64, 850.0), (2, 1e4)])
def test_pathwise_gradient_in_kappa(d, kappa):
    mu = normalize(torch.randn(d, dtype=torch.float64), dim=-1)
    kappas = torch.full((COUNT,), kappa, dtype=torch.float64, requires_grad=True)
    t = PowerSpherical(mu, kappas).rsample() @ mu
    (slope,) = torch.autograd.grad(t.sum(), kappas)  # dt/dκ of each sample
    # E[dt/dκ] = dE[t]/dκ = (d-1) / (d-1+κ)².
    expected = (d - 1) / (d - 1 + kappa) ** 2
    assert slope.mean().item() == pytest.approx(
        expected, abs=5 * slope.std().item() / COUNT**0.5 + 1e-3 * expected
    )
    assert slope.std() < 5 * expected  # else the line above could not fail


def test_pathwise_gradient_in_mu_turns_the_sample_with_mu():
    # E[c·z] = E[t] c·μ on the sphere, so along a tangent direction e the mean's slope is E[t] c·e.
    d, kappa = 6, 20.0
    mu, tangent = torch.eye(d, dtype=torch.float64)[:2]
    mus = mu.repeat(COUNT, 1).requires_grad_()
    z = PowerSpherical(mus, kappa).rsample()
    (gradient,) = torch.autograd.grad((z @ tangent).sum(), mus)
    slope = gradient @ tangent
    expected = kappa / (d - 1 + kappa)
    assert slope.mean().item() == pytest.approx(expected, abs=5 * slope.std().item() / COUNT**0.5)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (5, 8.0), (64, 850.0)])
def test_kl_and_entropy_against_monte_carlo(d, kappa):
    posterior, uniform = posterior_of(d, kappa), HypersphericalUniform(d, dtype=torch.float64)
    z = posterior.sample((COUNT,))
    log_prob = posterior.log_prob(z)
    ratio = log_prob - uniform.log_prob(z)
    error = 5 * ratio.std().item() / COUNT**0.5
    assert kl_divergence(posterior, uniform).item() == pytest.approx(ratio.mean().item(), abs=error)
    assert posterior.entropy().item() == pytest.approx(-log_prob.mean().item(), abs=error)


@pytest.mark.parametrize("d", [2, 16, 8192])
def test_kl_starts_at_zero_and_grows(d):
    kappa = torch.tensor([0, 1e-8, 1e-4, 1e-2, 1, 10, 1e3, 1e6], dtype=torch.float64)
    mu = normalize(torch.randn(d, dtype=torch.float64), dim=-1)
    kl = kl_divergence(PowerSpherical(mu, kappa), HypersphericalUniform(d))
    assert kl[0] < 1e-9
    assert (kl >= 0).all()
    assert (kl[4:].diff() > 0).all()


def test_samples_without_float64_keep_their_spread_where_b_rounds_to_one(without_float64):
    d, concentration = 3, 1e8
    mu = normalize(torch.randn(d), dim=-1).requires_grad_()
    kappa = torch.tensor(concentration, requires_grad=True)
    posterior = PowerSpherical(mu, kappa)
    z = posterior.rsample((COUNT,))
    assert z.dtype == torch.float32
    assert posterior.support.check(z).all()
    one_minus_t = (z - mu).square().sum(-1) / 2
    assert one_minus_t.mean().item() == pytest.approx((d - 1) / (d - 1 + concentration), rel=0.05)
    z.sum().backward()
    assert mu.grad.isfinite().all()
    assert kappa.grad.isfinite()


def test_samples_of_bfloat16_directions_are_on_the_sphere():
    mu = normalize(torch.randn(8, 64), dim=-1).bfloat16()
    z = PowerSpherical(mu, 850.0).sample((50,))
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(50, 8), rtol=0, atol=1e-6)
