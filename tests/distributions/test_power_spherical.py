"""PowerSpherical as a distribution: identities, shapes, validation, compilation."""

import copy
import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch.nn.functional import normalize

from vissl_zoo.distributions import PowerSpherical
from vissl_zoo.distributions.power_spherical import log_normalizer

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)


def random_posterior(*batch, d=5, scale=20.0):
    mu = normalize(torch.randn(*batch, d, dtype=torch.float64), dim=-1)
    return PowerSpherical(mu, scale * torch.rand(batch, dtype=torch.float64))


@pytest.mark.parametrize("d", DIMS)
def test_kappa_0_and_1_have_the_uniform_constant(exact, d):
    constants = log_normalizer(torch.tensor([0.0, 1.0], dtype=torch.float64), d)
    for constant in constants:
        assert exact.error(constant, -exact.log_area(d)) < 1e-12


def test_closed_form_on_the_ordinary_sphere():
    kappa = torch.linspace(0, 900, 7, dtype=torch.float64)
    expected = torch.log(kappa + 1) - (kappa + 2) * math.log(2) - math.log(math.pi)
    torch.testing.assert_close(log_normalizer(kappa, 3), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("d", [2, 3, 4, 7])
@pytest.mark.parametrize("kappa", [0.0, 0.7, 12.0, 300.0])
def test_density_integrates_to_one(exact, d, kappa):
    # ∫ f(t) dS = area(S^(d-2)) ∫ f(cos θ) sin(θ)^(d-2) dθ, by Gauss-Legendre with 400 nodes; S^0 is 2 points.
    nodes, weights = map(torch.tensor, leggauss(400))
    theta = (nodes + 1) * math.pi / 2
    z = torch.zeros(400, d, dtype=torch.float64)
    z[:, 0], z[:, 1] = theta.cos(), theta.sin()
    mu = torch.eye(d, dtype=torch.float64)[0]
    density = PowerSpherical(mu, kappa).log_prob(z).exp()
    ring = math.log(2) if d == 2 else float(exact.log_area(d - 1))
    total = math.exp(ring) * (weights * density * theta.sin() ** (d - 2)).sum() * math.pi / 2
    assert total.item() == pytest.approx(1, abs=1e-10)


def test_rotation_invariance():
    rotation, _ = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64))
    mu, z = (normalize(torch.randn(20, 9, dtype=torch.float64), dim=-1) for _ in range(2))
    before = PowerSpherical(mu, 40.0).log_prob(z)
    torch.testing.assert_close(PowerSpherical(mu @ rotation, 40.0).log_prob(z @ rotation), before)
    torch.testing.assert_close(PowerSpherical(z, 40.0).log_prob(mu), before)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (3, 1e4), (16, 0.0), (64, 90.0)])
def test_variance_sums_to_one_minus_the_squared_mean(d, kappa):
    mu = normalize(torch.randn(d, dtype=torch.float64), dim=-1)
    posterior = PowerSpherical(mu, kappa)
    # E‖z‖² = 1, and 1 - E[t]² = (1 - E[t]) (1 + E[t]) with 1 - E[t] = (d-1)/(d-1+κ).
    length = posterior.mean_resultant_length
    expected = (d - 1) / (d - 1 + kappa) * (1 + length)
    torch.testing.assert_close(posterior.variance.sum(), expected, rtol=1e-13, atol=0)
    assert torch.autograd.gradcheck(
        lambda m, k: PowerSpherical(m, k, validate_args=False).variance,
        (mu.clone().requires_grad_(), torch.tensor(kappa + 1.0).double().requires_grad_()),
    )


@pytest.mark.parametrize("kappa", [0.0, 1.0, 850.0, 1e6])
def test_variance_is_exact_and_never_negative(exact, kappa):
    mp, d = exact.mp, 5
    mu = torch.tensor([0.6, 0.8, 0.0, 0.0, 0.0], dtype=torch.float64)
    a, b = mp.mpf(kappa) + 2, mp.mpf(2)
    part = a / (a + b)
    variance_b = part * (1 - part) / (a + b + 1)
    variance_t, across = 4 * variance_b, 4 * (part * (1 - part) - variance_b) / (d - 1)
    for computed, m in zip(PowerSpherical(mu, kappa).variance, mu.tolist(), strict=True):
        expected = variance_t * m**2 + across * (1 - m**2)
        assert computed.item() == pytest.approx(float(expected), rel=1e-12)
    too_long = torch.tensor([1.004, 0.0], dtype=torch.bfloat16)
    assert (PowerSpherical(too_long, kappa).variance >= 0).all()


def test_pairs_of_views_are_a_batch():
    mu, z = (normalize(torch.randn(3, 4, 6, dtype=torch.float64), dim=-1) for _ in range(2))
    kappa = 50 * torch.rand(3, 4, dtype=torch.float64)
    log_prob = PowerSpherical(mu, kappa).log_prob(z)
    assert log_prob.shape == (3, 4)
    expected = log_normalizer(kappa, 6) + kappa * torch.log1p((mu * z).sum(-1))
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-12)
    assert log_normalizer(torch.tensor([1.0]), 5).dtype == torch.float64


def test_deepcopy_keeps_leaves():
    mu, kappa = normalize(torch.randn(2, 3), dim=-1).requires_grad_(), torch.ones(2, requires_grad=True)
    clone = copy.deepcopy(PowerSpherical(mu, kappa))
    assert clone.mu is not mu
    assert torch.equal(clone.mu, mu)
    clone.log_prob(mu.detach()).sum().backward()
    assert clone.kappa.grad is not None
    assert kappa.grad is None


def test_compiles_to_one_graph():
    def loss(mu, kappa, z):
        return -PowerSpherical(mu, kappa, validate_args=False).log_prob(z).mean()

    mu, z = (normalize(torch.randn(8, 16), dim=-1) for _ in range(2))
    arguments = mu.requires_grad_(), (100 * torch.rand(8)).requires_grad_(), z
    eager = loss(*arguments)
    # aot_eager traces forward and backward as every backend does, and leaves out the C++ compiler.
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(*arguments)
    torch.testing.assert_close(compiled, eager)
    for got, expected in zip(
        torch.autograd.grad(compiled, arguments[:2]), torch.autograd.grad(eager, arguments[:2]), strict=True
    ):
        torch.testing.assert_close(got, expected)
