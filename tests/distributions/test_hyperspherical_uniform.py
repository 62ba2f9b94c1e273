import copy

import pytest
import scipy.stats
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical


@pytest.mark.parametrize("d", [2, 3, 16, 2048])
def test_density_and_entropy_are_the_area(exact, d):
    uniform = HypersphericalUniform(d, (3,), dtype=torch.float64)
    z = normalize(torch.randn(5, 3, d, dtype=torch.float64), dim=-1)
    log_prob = uniform.log_prob(z)
    assert log_prob.shape == (5, 3)
    assert exact.error(log_prob[0, 0], -exact.log_area(d)) < 1e-13
    assert exact.error(uniform.entropy()[0], exact.log_area(d)) < 1e-13


def test_it_is_power_spherical_without_concentration():
    mu, z = normalize(torch.randn(2, 6, dtype=torch.float64), dim=-1)
    expected = PowerSpherical(mu, 0.0).log_prob(z)
    torch.testing.assert_close(HypersphericalUniform(6, dtype=torch.float64).log_prob(z), expected)


@pytest.mark.parametrize("d", [2, 3, 10])
def test_samples(d):
    uniform = HypersphericalUniform(d, (2,), dtype=torch.float64)
    z = uniform.sample((10_000,))
    assert z.shape == (10_000, 2, d)
    assert uniform.support.check(z).all()
    torch.testing.assert_close(z.mean(0), uniform.mean, rtol=0, atol=5 / 100)
    torch.testing.assert_close(z.var(0), uniform.variance, rtol=0.1, atol=0)
    # (1 + z_0)/2 of a uniform point is Beta((d-1)/2, (d-1)/2).
    marginal = scipy.stats.beta((d - 1) / 2, (d - 1) / 2)
    assert scipy.stats.kstest((1 + z[:, 0, 0].numpy()) / 2, marginal.cdf).pvalue > 1e-3


def test_expand_copy_and_repr():
    uniform = HypersphericalUniform(4)
    wide = uniform.expand((2, 3))
    assert wide.batch_shape == (2, 3)
    assert wide.event_shape == (4,)
    assert wide.rsample((5,)).shape == (5, 2, 3, 4)
    assert wide.entropy().shape == (2, 3)
    assert copy.deepcopy(wide).sample().shape == (2, 3, 4)
    assert repr(wide) == "HypersphericalUniform(dim: 4, batch_shape: torch.Size([2, 3]))"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_results_are_float32_or_float64(dtype):
    uniform = HypersphericalUniform(4, dtype=dtype)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    z = uniform.sample()
    assert {z.dtype, uniform.mean.dtype, uniform.entropy().dtype, uniform.log_prob(z).dtype} == {expected}


def test_kl_of_two_uniforms():
    p, q = HypersphericalUniform(4, (3, 1)), HypersphericalUniform(4, (2,))
    assert torch.equal(kl_divergence(p, q), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="different spheres"):
        kl_divergence(p, HypersphericalUniform(5))
    with pytest.raises(NotImplementedError):
        kl_divergence(p, Normal(0.0, 1.0))


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 2"):
        HypersphericalUniform(1)
    with pytest.raises(TypeError, match="floating-point"):
        HypersphericalUniform(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="support"):
        HypersphericalUniform(3).log_prob(torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(ValueError):
        HypersphericalUniform(3).log_prob(torch.tensor([1.0, 0.0]))
    with pytest.raises(NotImplementedError):
        _ = HypersphericalUniform(3).mode
