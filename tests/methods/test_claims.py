"""The paper's claims that the methods are one framework, as equations between code that was written apart."""

import math

import pytest
import torch
from scipy.special import ive
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, VonMisesFisher
from vissl_zoo.methods.base import Latents

B, D = 6, 16


def sphere(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("kappa", [1.0, 5.0, 40.0])
def test_claim_4_3_fixed_concentration_gives_simsiam(build, kappa):
    """J_align of a vMF posterior with constant κ (Eq. 17) has κ times SimSiam's gradient, and no other."""
    mean, target = sphere(2, B, D).requires_grad_(), sphere(2, B, D, seed=1)
    latents = Latents(mean, mean, target, torch.ones(2, B, dtype=torch.float64))
    simsiam = build("simsiam").alignment(latents)
    (expected,) = torch.autograd.grad(simsiam, mean)
    pairs = [(0, 1), (1, 0)]
    align = sum(
        VonMisesFisher(mean[i], kappa, validate_args=False).log_prob(target[j]).mean() for i, j in pairs
    )
    (found,) = torch.autograd.grad(align / len(pairs), mean)
    torch.testing.assert_close(found, kappa * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_claim_4_5_alignment_and_uniformity_give_simclr(build, temperature):
    """E_q[log p(z|x_j) - log p_D(z)] with p_D a mean over the minibatch is NT-Xent, up to log(2B - 1)."""
    z = sphere(2, B, D).requires_grad_()
    flat = z.flatten(0, 1)
    total = 0.0
    for n in range(2 * B):
        partner = (n + B) % (2 * B)
        others = [m for m in range(2 * B) if m != n]
        # The posterior of every other view, at the sample z_n of q(z|x_n); κ = 1/τ is the same for all.
        posterior = VonMisesFisher(flat[others], 1 / temperature, validate_args=False)
        density = posterior.log_prob(flat[n].expand(len(others), D))
        marginal = density.logsumexp(0) - math.log(len(others))
        total = total + density[others.index(partner)] - marginal
    inference = total / (2 * B)
    method = build("simclr", temperature=temperature)
    latents = Latents(z, z, z, torch.ones(2, B, dtype=torch.float64))
    simclr = method.alignment(latents) + method.uniformity(latents)
    torch.testing.assert_close(inference - math.log(2 * B - 1), simclr, rtol=1e-9, atol=1e-9)
    (found,) = torch.autograd.grad(inference, z, retain_graph=True)
    (expected,) = torch.autograd.grad(simclr, z)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_the_prior_is_a_constant_of_the_objective():
    """J_KL of a deterministic q and a uniform p(z) does not depend on z (§4.1)."""
    z = sphere(B, D)
    prior = HypersphericalUniform(D, dtype=torch.float64)
    assert prior.log_prob(z).unique().numel() == 1


def test_vi_simsiam_with_constant_kappa_only_reweighs_simsiam(build):
    """With κ constant the Power Spherical pulls μ towards z as SimSiam does, by κ / (1 + t)."""
    mean, target = sphere(2, B, D).requires_grad_(), sphere(2, B, D, seed=1)
    latents = Latents(mean, mean, target, torch.full((2, B), 7.0, dtype=torch.float64))
    (paper,) = torch.autograd.grad(build("vi_simsiam", variant="paper").alignment(latents), mean)
    (plain,) = torch.autograd.grad(build("simsiam").alignment(latents), mean)
    t = torch.stack([(mean[0] * target[1]).sum(-1), (mean[1] * target[0]).sum(-1)])
    torch.testing.assert_close(paper, plain * (7.0 / (1 + t)).unsqueeze(-1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 16, 64])
def test_a_learnt_concentration_settles_where_the_expected_cosine_is_the_seen_one(dim):
    """d log p/dκ of a von Mises-Fisher is t - A_d(κ), A_d(κ) = E[t]; SciPy's Bessel functions give A_d."""
    kappa = torch.tensor([0.1, 1.0, 20.0, 90.0], dtype=torch.float64, requires_grad=True)
    mean, target = sphere(4, dim), sphere(4, dim, seed=1)
    posterior = VonMisesFisher(mean, kappa, validate_args=False)
    (slope,) = torch.autograd.grad(posterior.log_prob(target).sum(), kappa)
    k = kappa.detach().numpy()
    length = torch.from_numpy(ive(dim / 2, k) / ive(dim / 2 - 1, k))
    torch.testing.assert_close(slope, (mean * target).sum(-1) - length, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(posterior.mean_resultant_length, length, rtol=1e-9, atol=1e-9)
