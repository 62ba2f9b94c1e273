"""VonMisesFisher's numbers and gradients against mpmath, in every dtype and under autocast."""

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, VonMisesFisher

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)
KAPPAS = (0.0, 1e-3, 0.3, 1.0, 30.0, 850.0, 1e4, 1e6)
COSINES = (-1.0, -0.5, 0.0, 0.7, 1 - 1e-6, 1.0)


@pytest.mark.parametrize("d", DIMS)
def test_summaries_and_two_derivatives_match_mpmath(exact, d):
    mu, z = torch.eye(d, dtype=torch.float64)[:2]
    for k in KAPPAS:
        kappa = torch.tensor(k, dtype=torch.float64, requires_grad=True)
        posterior, reference = VonMisesFisher(mu, kappa), exact.von_mises_fisher(k, d)
        values = {
            "log_normalizer": posterior.log_prob(z),
            "entropy": posterior.entropy(),
            "kl": kl_divergence(posterior, HypersphericalUniform(d, dtype=kappa.dtype)),
        }
        for name, value in values.items():
            series = exact.derivatives(value, kappa, 2)
            for computed, expected in zip(series, getattr(reference, name), strict=True):
                assert exact.error(computed, expected) < 1e-8, (name, k)
        assert exact.error(posterior.mean_resultant_length.detach(), reference.resultant) < 1e-9
        torch.testing.assert_close(posterior.mean, float(reference.resultant) * mu, check_dtype=False)


@pytest.mark.parametrize("d", DIMS)
def test_log_prob_and_its_gradients_match_mpmath(exact, d):
    references = [exact.von_mises_fisher(k, d) for k in KAPPAS]
    for t in COSINES:
        mu, z = exact.pair(d, t)
        one_minus = 1 - exact.cosine(mu, z, normalised=True)
        mus = mu.repeat(len(KAPPAS), 1).requires_grad_()
        kappa = torch.tensor(KAPPAS, dtype=torch.float64, requires_grad=True)
        log_prob = VonMisesFisher(mus, kappa).log_prob(z)
        d_mu, d_kappa = torch.autograd.grad(log_prob.sum(), (mus, kappa))
        for i, (k, reference) in enumerate(zip(KAPPAS, references, strict=True)):
            assert exact.error(log_prob[i].detach(), reference.log_density_at_mode - k * one_minus) < 1e-9
            assert exact.error(d_kappa[i], reference.complement - one_minus) < 1e-9, (k, t)
            torch.testing.assert_close(d_mu[i], k * z, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("d", DIMS)
def test_float32_inputs_lose_no_more_than_their_own_rounding(exact, d):
    for t in (-0.5, 0.0, 0.7, 1.0):
        mu, z = exact.pair(d, t, torch.float32)
        log_prob = VonMisesFisher(mu.expand(len(KAPPAS), d), torch.tensor(KAPPAS)).log_prob(z)
        assert log_prob.dtype == torch.float32
        one_minus = 1 - exact.cosine(mu, z, normalised=True)
        for value, k in zip(log_prob, KAPPAS, strict=True):
            k = float(torch.tensor(k))
            at_mode = exact.von_mises_fisher(k, d).log_density_at_mode
            assert exact.error(value, at_mode - k * one_minus, k * one_minus) < 2e-7, (k, t)


def test_bfloat16_and_float16_parameters_are_held_in_float32():
    for dtype in (torch.bfloat16, torch.float16):
        mu = normalize(torch.randn(3, 5), dim=-1).to(dtype)
        posterior = VonMisesFisher(mu, torch.rand(3, dtype=dtype))
        z = posterior.sample()
        results = [z, posterior.mean, posterior.mode, posterior.variance, posterior.entropy()]
        results += [posterior.log_prob(z.to(dtype)), kl_divergence(posterior, HypersphericalUniform(5))]
        results += [kl_divergence(posterior, posterior)]
        assert {result.dtype for result in results} == {torch.float32}
    assert posterior.log_prob(z.double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    mu = normalize(torch.randn(8, 32), dim=-1).to(dtype).requires_grad_()
    z = normalize(torch.randn(8, 32), dim=-1).to(dtype)
    kappa = (900 * torch.rand(8)).to(dtype).requires_grad_()

    def everything():
        torch.manual_seed(3)
        posterior = VonMisesFisher(mu, kappa)
        values = [posterior.log_prob(z), posterior.entropy(), posterior.mean, posterior.variance]
        values += [posterior.rsample()]
        values += [kl_divergence(posterior, VonMisesFisher(z, 20.0))]
        return values, torch.autograd.grad(sum(value.sum() for value in values), (mu, kappa))

    plain_values, plain_gradients = everything()
    with torch.autocast("cpu", torch.bfloat16):
        values, gradients = everything()
    for got, expected in zip((*values, *gradients), (*plain_values, *plain_gradients), strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
