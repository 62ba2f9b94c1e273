"""PowerSpherical as a distribution: identities, shapes, validation, compilation."""

import copy
import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical, log1p_cosine, log_normalizer

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)


def random_posterior(*batch, d=5, scale=20.0):
    mu = normalize(torch.randn(*batch, d, dtype=torch.float64), dim=-1)
    return PowerSpherical(mu, scale * torch.rand(batch, dtype=torch.float64))


@pytest.mark.parametrize("d", DIMS)
def test_kappa_0_and_1_have_the_uniform_constant(exact, d):
    constants = log_normalizer(torch.tensor([0.0, 1.0], dtype=torch.float64), d)
    for constant in constants:
        assert exact.error(constant, -exact.log_area(d)) < 1e-13


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


def test_the_pieces_add_up_to_log_prob():
    posterior = random_posterior(6, scale=1e5)
    z = posterior.sample()
    pieces = log_normalizer(posterior.kappa, 5) + posterior.kappa * log1p_cosine(posterior.mu, z)
    torch.testing.assert_close(posterior.log_prob(z), pieces, rtol=1e-12, atol=1e-9)
    assert log_normalizer(torch.tensor([1.0]), 5).dtype == torch.float64


def test_shapes_broadcast_and_expand():
    mu = normalize(torch.randn(3, 1, 6), dim=-1)
    posterior = PowerSpherical(mu, torch.rand(4))
    assert (posterior.batch_shape, posterior.event_shape) == ((3, 4), (6,))
    assert posterior.mu.shape == posterior.mean.shape == posterior.variance.shape == (3, 4, 6)
    assert posterior.kappa.shape == posterior.entropy().shape == (3, 4)
    assert kl_divergence(posterior, HypersphericalUniform(6, (2, 1, 1))).shape == (2, 3, 4)
    z = posterior.rsample((2,))
    assert z.shape == (2, 3, 4, 6)
    log_prob = posterior.log_prob(z)
    assert log_prob.shape == (2, 3, 4)
    single = PowerSpherical(mu[1, 0], posterior.kappa[1, 2])
    assert single.batch_shape == ()
    torch.testing.assert_close(single.log_prob(z[0, 1, 2]), log_prob[0, 1, 2])
    wide = posterior.expand((2, 3, 4))
    assert wide.batch_shape == (2, 3, 4)
    torch.testing.assert_close(wide.log_prob(z), log_prob)
    assert repr(posterior) == "PowerSpherical(mu: torch.Size([3, 4, 6]), kappa: torch.Size([3, 4]))"


def test_deepcopy_keeps_leaves():
    mu, kappa = normalize(torch.randn(2, 3), dim=-1).requires_grad_(), torch.ones(2, requires_grad=True)
    clone = copy.deepcopy(PowerSpherical(mu, kappa))
    assert clone.mu is not mu
    assert torch.equal(clone.mu, mu)
    clone.log_prob(mu.detach()).sum().backward()
    assert clone.kappa.grad is not None
    assert kappa.grad is None


E1 = torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "mu, kappa",
    [
        (E1, -1e-3),
        (E1, math.nan),
        (E1, math.inf),
        (1.5 * E1, 1.0),
        (0 * E1, 1.0),
        (math.nan * E1, 1.0),
    ],
)
def test_validation_reads_the_data_only_when_asked(mu, kappa):
    with pytest.raises(ValueError):
        PowerSpherical(mu, kappa)
    PowerSpherical(mu, kappa, validate_args=False)


@pytest.mark.parametrize("validate_args", [True, False])
def test_shapes_are_always_checked(validate_args):
    for mu, kappa, message in [
        (torch.ones(4, 1), 1.0, "at least 2"),
        (torch.tensor(1.0), 1.0, "scalar"),
        (E1.expand(4, 3), torch.ones(5), "do not broadcast"),
        (E1.expand(4, 3), torch.ones(3, 3), "do not broadcast"),
    ]:
        with pytest.raises(ValueError, match=message):
            PowerSpherical(mu, kappa, validate_args=validate_args)
    posterior = PowerSpherical(E1.expand(4, 3), 1.0, validate_args=validate_args)
    for z in (torch.ones(4, 1), torch.ones(4, 4), E1.expand(5, 3)):
        with pytest.raises(ValueError, match="do not pair"):
            posterior.log_prob(z)
    with pytest.raises(ValueError, match="at least 2"):
        log_normalizer(torch.ones(2), 1)
    with pytest.raises(TypeError, match="floating-point"):
        PowerSpherical(torch.tensor([1, 0, 0]), 1.0, validate_args=validate_args)
    with pytest.raises(ValueError, match="different spheres"):
        kl_divergence(posterior, HypersphericalUniform(4))


def test_values_off_the_sphere_are_refused():
    with pytest.raises(ValueError, match="support"):
        PowerSpherical(E1, 1.0).log_prob(1.1 * E1)


def test_without_validation_nothing_waits_for_the_device():
    # A meta tensor has no data, so whatever would copy some to the host raises.
    mu, kappa = torch.ones(4, 3, device="meta", requires_grad=True), torch.ones(4, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        PowerSpherical(mu, kappa, validate_args=True)
    posterior = PowerSpherical(mu, kappa, validate_args=False)
    uniform = HypersphericalUniform(3, device="meta", validate_args=False)
    total = posterior.log_prob(mu.detach()) + posterior.entropy() + kl_divergence(posterior, uniform)
    (total.sum() + posterior.mean.sum() + posterior.variance.sum()).backward()
    assert mu.grad.shape == (4, 3)


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
