"""PowerSpherical's numbers and gradients against mpmath, in every dtype and under autocast."""

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical
from vissl_zoo.distributions.power_spherical import log_normalizer

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)
KAPPAS = (0.0, 1e-3, 0.3, 1.0, 30.0, 850.0, 1e4, 1e6)
COSINES = (-1 + 1e-6, -0.95, -0.5, 0.0, 0.7, 1 - 1e-6, 1.0)


def scalar_summaries(posterior, kappa, d):
    uniform = HypersphericalUniform(d, dtype=kappa.dtype)
    return {
        "log_normalizer": log_normalizer(kappa, d),
        "entropy": posterior.entropy(),
        "kl": kl_divergence(posterior, uniform),
    }


@pytest.mark.parametrize("d", DIMS)
def test_summaries_and_two_derivatives_match_mpmath(exact, d):
    mu, _ = exact.pair(d, 0.0)
    for k in KAPPAS:
        kappa = torch.tensor(k, dtype=torch.float64, requires_grad=True)
        posterior, reference = PowerSpherical(mu, kappa), exact.power_spherical(k, d)
        for name, value in scalar_summaries(posterior, kappa, d).items():
            series = exact.derivatives(value, kappa, 2)
            for computed, expected in zip(series, getattr(reference, name), strict=True):
                assert exact.error(computed, expected) < 1e-8, (name, k)
        assert exact.error(posterior.mean_resultant_length.detach(), reference.resultant) < 1e-15
        torch.testing.assert_close(posterior.mean, float(reference.resultant) * mu, check_dtype=False)


@pytest.mark.parametrize("d", DIMS)
def test_log_prob_and_its_gradients_match_mpmath(exact, d):
    for t in COSINES:
        mu, z = exact.pair(d, t)
        one_plus = 1 + exact.cosine(mu, z, normalised=True)
        mus, kappa = (
            mu.repeat(len(KAPPAS), 1).requires_grad_(),
            torch.tensor(KAPPAS, dtype=torch.float64, requires_grad=True),
        )
        log_prob = PowerSpherical(mus, kappa).log_prob(z)
        d_mu, d_kappa = torch.autograd.grad(log_prob.sum(), (mus, kappa))
        for i, k in enumerate(KAPPAS):
            log_c, slope, _ = exact.power_spherical(k, d).log_normalizer
            log_one_plus = exact.mp.log(one_plus)
            assert exact.error(log_prob[i].detach(), log_c + k * log_one_plus) < 1e-9, (k, t)
            assert exact.error(d_kappa[i], slope + log_one_plus) < 1e-9, (k, t)
            torch.testing.assert_close(d_mu[i], k * z / float(one_plus), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("d", DIMS)
def test_float32_inputs_lose_no_more_than_their_own_rounding(exact, d):
    for t in (-0.5, 0.0, 0.7, 1.0):
        mu, z = exact.pair(d, t, torch.float32)
        log_prob = PowerSpherical(mu.expand(len(KAPPAS), d), torch.tensor(KAPPAS)).log_prob(z)
        assert log_prob.dtype == torch.float32
        log_one_plus = exact.mp.log(1 + exact.cosine(mu, z, normalised=True))
        for value, k in zip(log_prob, KAPPAS, strict=True):
            k = float(torch.tensor(k))
            expected = exact.power_spherical(k, d).log_normalizer[0] + k * log_one_plus
            assert exact.error(value, expected, k * log_one_plus) < 5e-7, (k, t)


@pytest.mark.parametrize("d", [2, 16, 2048])
def test_without_float64_only_the_cosine_is_rounded(exact, d, without_float64):
    for t in COSINES:
        mu, z = exact.pair(d, t, torch.float32)
        one_plus = 1 + exact.cosine(mu, z, normalised=True)
        for k in KAPPAS:
            kappa = torch.tensor(k, requires_grad=True)
            posterior, reference = PowerSpherical(mu, kappa), exact.power_spherical(kappa.item(), d)
            log_prob = posterior.log_prob(z)
            assert log_prob.dtype == torch.float32
            expected = reference.log_normalizer[0] + k * exact.mp.log(one_plus)
            assert abs(float(exact.mp.mpf(log_prob.item()) - expected)) < 1e-6 * (k + abs(float(expected)))
            assert exact.error(posterior.entropy(), reference.entropy[0]) < 1e-7


def test_bfloat16_and_float16_parameters_are_held_in_float32():
    for dtype in (torch.bfloat16, torch.float16):
        mu = normalize(torch.randn(3, 5), dim=-1).to(dtype)
        posterior = PowerSpherical(mu, torch.rand(3, dtype=dtype))
        z = posterior.sample()
        results = [z, posterior.mean, posterior.mode, posterior.variance, posterior.entropy()]
        results += [posterior.log_prob(z.to(dtype)), kl_divergence(posterior, HypersphericalUniform(5))]
        assert {result.dtype for result in results} == {torch.float32}
    assert posterior.log_prob(z.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    mu = normalize(torch.randn(8, 32), dim=-1).to(dtype).requires_grad_()
    z = normalize(torch.randn(8, 32), dim=-1).to(dtype)
    kappa = (900 * torch.rand(8)).to(dtype).requires_grad_()

    def everything():
        torch.manual_seed(3)
        posterior = PowerSpherical(mu, kappa)
        values = [posterior.log_prob(z), posterior.entropy(), posterior.mean, posterior.variance]
        values += [log_normalizer(kappa, 32), posterior.rsample()]
        return values, torch.autograd.grad(sum(value.sum() for value in values), (mu, kappa))

    plain_values, plain_gradients = everything()
    with torch.autocast("cpu", torch.bfloat16):
        values, gradients = everything()
    for got, expected in zip((*values, *gradients), (*plain_values, *plain_gradients), strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kappa", [0.0, 850.0, 1e4])
def test_the_antipode_is_finite(dtype, kappa):
    mu = normalize(torch.randn(4, 16), dim=-1).to(dtype).requires_grad_()
    kappa = torch.full((4,), kappa, dtype=dtype, requires_grad=True)
    log_prob = PowerSpherical(mu, kappa).log_prob(-mu.detach())
    log_prob.sum().backward()
    for tensor in (log_prob, mu.grad, kappa.grad):
        assert tensor.isfinite().all()
