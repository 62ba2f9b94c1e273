"""VonMisesFisher's numbers and gradients against mpmath, in every dtype and under autocast."""

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, VonMisesFisher, vmf_log_normalizer

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)
KAPPAS = (0.0, 1e-3, 0.3, 1.0, 30.0, 850.0, 1e4, 1e6)
COSINES = (-1.0, -0.5, 0.0, 0.7, 1 - 1e-6, 1.0)


@pytest.mark.parametrize("d", DIMS)
def test_summaries_and_two_derivatives_match_mpmath(exact, d):
    mu, _ = exact.pair(d, 0.0)
    for k in KAPPAS:
        kappa = torch.tensor(k, dtype=torch.float64, requires_grad=True)
        posterior, reference = VonMisesFisher(mu, kappa), exact.von_mises_fisher(k, d)
        values = {
            "log_normalizer": vmf_log_normalizer(kappa, d),
            "entropy": posterior.entropy(),
            "kl": kl_divergence(posterior, HypersphericalUniform(d, dtype=kappa.dtype)),
        }
        for name, value in values.items():
            series = exact.derivatives(value, kappa, 2)
            for computed, expected in zip(series, getattr(reference, name), strict=True):
                assert exact.error(computed, expected) < 1e-12, (name, k)
        assert exact.error(posterior.mean_resultant_length.detach(), reference.resultant) < 1e-15
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
            assert exact.error(log_prob[i].detach(), reference.log_density_at_mode - k * one_minus) < 1e-12
            assert exact.error(d_kappa[i], reference.complement - one_minus) < 1e-12, (k, t)
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


@pytest.mark.parametrize("d", DIMS)
def test_float32_form(exact, d, float32_form):
    """The bounds that the docstrings state for devices without float64."""
    mu, z = exact.pair(d, 0.7, torch.float32)
    one_minus = 1 - exact.cosine(mu, z, normalised=True)
    other = VonMisesFisher(z, 30.0)
    other_at_mode = exact.von_mises_fisher(30.0, d).log_density_at_mode
    for k in KAPPAS:
        kappa = torch.tensor(k, requires_grad=True)
        k = kappa.item()
        reference = exact.von_mises_fisher(k, d)
        posterior = VonMisesFisher(mu.requires_grad_(), kappa)
        log_prob = posterior.log_prob(z)
        d_mu, d_kappa = torch.autograd.grad(log_prob, (mu, kappa))
        parts = reference.log_density_at_mode, -k * one_minus
        assert exact.error(log_prob.detach(), sum(parts), *parts) < 2e-6, k
        assert exact.error(d_kappa, reference.complement - one_minus) < 2e-6, k
        torch.testing.assert_close(d_mu, k * z, rtol=1e-6, atol=0)
        for computed, expected in zip(
            exact.derivatives(vmf_log_normalizer(kappa, d), kappa, 2), reference.log_normalizer, strict=True
        ):
            assert computed.dtype == torch.float32
            assert exact.error(computed, expected) < 2e-6, k
        entropy, d_entropy = exact.derivatives(posterior.entropy(), kappa, 1)
        assert exact.error(entropy, reference.entropy[0]) < 3e-6, k
        assert exact.error(d_entropy, reference.entropy[1]) < 2e-6, k
        kl = kl_divergence(posterior, HypersphericalUniform(d)).detach()
        assert exact.error(kl, reference.kl[0]) < 2e-6, k
        at_modes = reference.log_density_at_mode - other_at_mode
        expected = at_modes - (k - 30) * reference.complement + 30 * reference.resultant * one_minus
        assert (
            exact.error(kl_divergence(posterior, other).detach(), expected, *parts, other_at_mode) < 5e-6
        ), k


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


@pytest.mark.parametrize("form", ["float64", "float32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(request, dtype, form):
    if form == "float32":
        request.getfixturevalue("float32_form")
    mu = normalize(torch.randn(8, 32), dim=-1).to(dtype).requires_grad_()
    z = normalize(torch.randn(8, 32), dim=-1).to(dtype)
    kappa = (900 * torch.rand(8)).to(dtype).requires_grad_()

    def everything():
        torch.manual_seed(3)
        posterior = VonMisesFisher(mu, kappa)
        values = [posterior.log_prob(z), posterior.entropy(), posterior.mean, posterior.variance]
        values += [vmf_log_normalizer(kappa, 32), posterior.rsample()]
        values += [kl_divergence(posterior, VonMisesFisher(z, 20.0))]
        return values, torch.autograd.grad(sum(value.sum() for value in values), (mu, kappa))

    plain_values, plain_gradients = everything()
    with torch.autocast("cpu", torch.bfloat16):
        values, gradients = everything()
    for got, expected in zip((*values, *gradients), (*plain_values, *plain_gradients), strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
