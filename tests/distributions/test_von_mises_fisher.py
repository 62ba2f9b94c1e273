"""VonMisesFisher as a distribution: identities, divergences, compilation."""

import math

import pytest
import scipy.stats
import torch
from numpy.polynomial.legendre import leggauss
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, VonMisesFisher

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)


def log_normalizer(kappa: torch.Tensor, d: int) -> torch.Tensor:
    """log C(κ): the density at a right angle to the mean direction."""
    first, second = torch.eye(d, dtype=torch.float64)[:2]
    return VonMisesFisher(first, kappa).log_prob(second)


def direction(d: int) -> torch.Tensor:
    return normalize(torch.randn(d, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("d", DIMS)
def test_kappa_0_has_the_uniform_constant(exact, d):
    assert exact.error(log_normalizer(torch.zeros((), dtype=torch.float64), d), -exact.log_area(d)) < 1e-11


def test_closed_form_on_the_ordinary_sphere():
    # C = κ / (4π sinh κ) and A = coth κ - 1/κ.
    kappa = torch.logspace(-3, 6, 40, dtype=torch.float64, requires_grad=True)
    log_c = log_normalizer(kappa, 3)
    log_sinh = kappa + torch.log(-torch.expm1(-2 * kappa) / 2)
    torch.testing.assert_close(
        log_c, torch.log(kappa) - math.log(4 * math.pi) - log_sinh, rtol=1e-9, atol=1e-9
    )
    (slope,) = torch.autograd.grad(log_c.sum(), kappa)
    torch.testing.assert_close(slope, 1 / kappa - 1 / torch.tanh(kappa), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("d", [2, 3, 4, 7])
@pytest.mark.parametrize("kappa", [0.0, 0.7, 12.0, 300.0])
def test_density_integrates_to_one(exact, d, kappa):
    # ∫ f(t) dS = area(S^(d-2)) ∫ f(cos θ) sin(θ)^(d-2) dθ, by Gauss-Legendre with 400 nodes; S^0 is 2 points.
    nodes, weights = map(torch.tensor, leggauss(400))
    theta = (nodes + 1) * math.pi / 2
    z = torch.zeros(400, d, dtype=torch.float64)
    z[:, 0], z[:, 1] = theta.cos(), theta.sin()
    density = VonMisesFisher(torch.eye(d, dtype=torch.float64)[0], kappa).log_prob(z).exp()
    ring = math.log(2) if d == 2 else float(exact.log_area(d - 1))
    measure = math.exp(ring) * math.pi / 2 * weights * theta.sin() ** (d - 2)
    assert (measure * density).sum().item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("d, kappa", [(2, 0.5), (3, 40.0), (10, 7.0), (64, 90.0)])
def test_density_and_entropy_are_scipys(d, kappa):
    mu, z = direction(d), normalize(torch.randn(20, d, dtype=torch.float64), dim=-1)
    posterior, reference = VonMisesFisher(mu, kappa), scipy.stats.vonmises_fisher(mu.numpy(), kappa)
    expected = torch.from_numpy(reference.logpdf(z.numpy()))
    torch.testing.assert_close(posterior.log_prob(z), expected, rtol=1e-10, atol=1e-10)
    assert posterior.entropy().item() == pytest.approx(float(reference.entropy()), rel=1e-9)


def test_rotation_invariance():
    rotation, _ = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64))
    mu, z = (normalize(torch.randn(20, 9, dtype=torch.float64), dim=-1) for _ in range(2))
    before = VonMisesFisher(mu, 40.0).log_prob(z)
    torch.testing.assert_close(VonMisesFisher(mu @ rotation, 40.0).log_prob(z @ rotation), before)
    torch.testing.assert_close(VonMisesFisher(z, 40.0).log_prob(mu), before)


@pytest.mark.parametrize("d, kappa", [(2, 3.0), (3, 1e4), (16, 0.0), (64, 90.0)])
def test_variance_sums_to_one_minus_the_squared_mean(exact, d, kappa):
    mu = direction(d)
    ratio = exact.von_mises_fisher(kappa, d).resultant
    expected = float((1 - ratio) * (1 + ratio))  # E‖z‖² = 1
    assert VonMisesFisher(mu, kappa).variance.sum().item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda m, k: VonMisesFisher(m, k, validate_args=False).variance,
        (mu.clone().requires_grad_(), torch.tensor(kappa + 1.0).double().requires_grad_()),
    )


@pytest.mark.parametrize("d, kappa", [(3, 1.0), (5, 850.0), (5, 1e6), (2048, 1e6)])
def test_variance_along_and_across_is_exact(exact, d, kappa):
    reference = exact.von_mises_fisher(kappa, d)
    mu = torch.eye(d, dtype=torch.float64)[0]
    variance = VonMisesFisher(mu, kappa).variance
    assert variance[0].item() == pytest.approx(float(reference.slope), rel=1e-12)
    assert variance[1].item() == pytest.approx(float(reference.resultant / kappa), rel=1e-12)
    too_long = torch.tensor([1.004, 0.0], dtype=torch.bfloat16)
    assert (VonMisesFisher(too_long, kappa).variance >= 0).all()


@pytest.mark.parametrize("d", [2, 16, 8192])
def test_kl_to_the_uniform_starts_at_zero_and_grows(d):
    kappa = torch.tensor([0, 1e-8, 1e-4, 1e-2, 1, 10, 1e3, 1e6], dtype=torch.float64)
    posterior, uniform = VonMisesFisher(direction(d), kappa), HypersphericalUniform(d, dtype=torch.float64)
    kl = kl_divergence(posterior, uniform)
    assert kl[0] < 1e-9
    assert (kl >= 0).all()
    assert (kl[4:].diff() > 0).all()
    torch.testing.assert_close(kl[4:], (uniform.entropy() - posterior.entropy())[4:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [2, 5, 300])
def test_kl_of_two(d):
    mu, other = direction(d), direction(d)
    p, q = VonMisesFisher(mu, 40.0), VonMisesFisher(other, torch.tensor([0.0, 3.0, 40.0]).double())
    # log C(κ_p) - log C(κ_q) + A(κ_p) (κ_p - κ_q μ_p·μ_q), and A μ_p = E[z].
    log_c = log_normalizer(p.kappa, d) - log_normalizer(q.kappa, d)
    expected = log_c + ((p.kappa * mu - q.kappa.unsqueeze(-1) * other) * p.mean).sum(-1)
    torch.testing.assert_close(kl_divergence(p, q), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        kl_divergence(p, q)[0], kl_divergence(p, HypersphericalUniform(d)), rtol=1e-12, atol=1e-12
    )
    assert (kl_divergence(p, q) > 0).all()
    with pytest.raises(ValueError, match="do not pair"):
        kl_divergence(p, VonMisesFisher(direction(d + 1), 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_to_itself_is_zero_with_a_zero_gradient(dtype):
    mu, kappa = normalize(torch.randn(6, 64), dim=-1).to(dtype), torch.logspace(-2, 5, 6, dtype=dtype)
    parameters = [mu.requires_grad_(), kappa.requires_grad_()]
    p, q = VonMisesFisher(*parameters), VonMisesFisher(mu.detach(), kappa.detach())
    kl = kl_divergence(p, q)
    torch.testing.assert_close(kl, torch.zeros_like(kl), rtol=0, atol=1e-12)
    d_mu, d_kappa = torch.autograd.grad(kl.sum(), parameters)
    assert d_kappa.abs().max() < 1e-12
    along = (d_mu * mu).sum(-1, keepdim=True) * mu
    assert (d_mu - along).abs().max() < 1e-6 * kappa.max()  # only the sphere's normal is left


def test_compiles_to_one_graph():
    def loss(mu, kappa, z):
        return -VonMisesFisher(mu, kappa, validate_args=False).log_prob(z).mean()

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
