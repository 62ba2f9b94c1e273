"""What holds for every distribution that is symmetric about a mean direction."""

import copy
import math

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical, VonMisesFisher
from vissl_zoo.distributions.rotationally_symmetric import RotationallySymmetric

FAMILIES = pytest.mark.parametrize("family", [PowerSpherical, VonMisesFisher])
E1 = torch.tensor([1.0, 0.0, 0.0])


@FAMILIES
@pytest.mark.parametrize("d", [2, 3, 64])
def test_without_concentration_it_is_the_uniform_distribution(family, d):
    mu, z = normalize(torch.randn(2, d, dtype=torch.float64), dim=-1)
    posterior, uniform = family(mu, 0.0), HypersphericalUniform(d, dtype=torch.float64)
    torch.testing.assert_close(posterior.log_prob(z), uniform.log_prob(z), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(posterior.entropy(), uniform.entropy(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(posterior.variance, uniform.variance, rtol=1e-12, atol=0)
    torch.testing.assert_close(posterior.mean, 0 * mu, rtol=0, atol=1e-14)
    assert torch.equal(posterior.mode, mu)


@FAMILIES
def test_shapes_broadcast_and_expand(family):
    mu = normalize(torch.randn(3, 1, 6), dim=-1)
    posterior = family(mu, torch.rand(4))
    assert (posterior.batch_shape, posterior.event_shape) == ((3, 4), (6,))
    assert posterior.mu.shape == posterior.mean.shape == posterior.variance.shape == (3, 4, 6)
    assert posterior.kappa.shape == posterior.entropy().shape == (3, 4)
    assert kl_divergence(posterior, HypersphericalUniform(6, (2, 1, 1))).shape == (2, 3, 4)
    z = posterior.rsample((2,))
    assert z.shape == (2, 3, 4, 6)
    log_prob = posterior.log_prob(z)
    assert log_prob.shape == (2, 3, 4)
    single = family(mu[1, 0], posterior.kappa[1, 2])
    assert single.batch_shape == ()
    torch.testing.assert_close(single.log_prob(z[0, 1, 2]), log_prob[0, 1, 2])
    wide = posterior.expand((2, 3, 4))
    assert type(wide) is family
    assert wide.batch_shape == (2, 3, 4)
    torch.testing.assert_close(wide.log_prob(z), log_prob)
    assert copy.deepcopy(wide).rsample().shape == (2, 3, 4, 6)
    assert repr(posterior) == f"{family.__name__}(mu: torch.Size([3, 4, 6]), kappa: torch.Size([3, 4]))"


@FAMILIES
@pytest.mark.parametrize(
    "mu, kappa",
    [(E1, -1e-3), (E1, math.nan), (E1, math.inf), (1.5 * E1, 1.0), (0 * E1, 1.0), (math.nan * E1, 1.0)],
)
def test_validation_reads_the_data_only_when_asked(family, mu, kappa):
    with pytest.raises(ValueError):
        family(mu, kappa)
    family(mu, kappa, validate_args=False)


@FAMILIES
@pytest.mark.parametrize("validate_args", [True, False])
def test_shapes_are_always_checked(family, validate_args):
    for mu, kappa, message in [
        (torch.ones(4, 1), 1.0, "at least 2"),
        (E1.expand(4, 3), torch.ones(3, 3), "do not broadcast"),
        (torch.tensor(1.0), 1.0, "scalar"),
        (E1.expand(4, 3), torch.ones(5), "do not broadcast"),
    ]:
        with pytest.raises(ValueError, match=message):
            family(mu, kappa, validate_args=validate_args)
    posterior = family(E1.expand(4, 3), 1.0, validate_args=validate_args)
    for z in (torch.ones(4, 1), torch.ones(4, 4), E1.expand(5, 3)):
        with pytest.raises(ValueError, match="do not pair"):
            posterior.log_prob(z)
    with pytest.raises(TypeError, match="floating-point"):
        family(torch.tensor([1, 0, 0]), 1.0, validate_args=validate_args)
    with pytest.raises(ValueError, match="different spheres"):
        kl_divergence(posterior, HypersphericalUniform(4))


@FAMILIES
def test_values_off_the_sphere_are_refused(family):
    with pytest.raises(ValueError, match="support"):
        family(E1, 1.0).log_prob(1.1 * E1)


@FAMILIES
def test_without_validation_nothing_waits_for_the_device(family):
    # A meta tensor has no data, so whatever would copy some to the host raises.
    mu, kappa = torch.ones(4, 3, device="meta", requires_grad=True), torch.ones(4, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        family(mu, kappa, validate_args=True)
    posterior = family(mu, kappa, validate_args=False)
    uniform = HypersphericalUniform(3, device="meta", validate_args=False)
    total = posterior.log_prob(mu.detach()) + posterior.entropy() + kl_divergence(posterior, uniform)
    (total.sum() + posterior.mean.sum() + posterior.variance.sum()).backward()
    assert mu.grad.shape == (4, 3)


def test_the_base_class_alone_has_no_law():
    with pytest.raises(TypeError, match="abstract"):
        RotationallySymmetric(E1, 1.0)
