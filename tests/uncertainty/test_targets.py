"""The agreement of views against one number at a time, what it does not depend on, and its likelihood."""

import itertools

import numpy as np
import pytest
import torch

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical
from vissl_zoo.errors import UserError
from vissl_zoo.uncertainty import targets as module
from vissl_zoo.uncertainty.targets import best_constant, log_likelihood, measure_agreement


def clusters(images=30, views=4, width=6, noise=0.3, seed=0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(images, 1, width, generator=generator)
    return (centres + noise * torch.randn(images, views, width, generator=generator)).numpy()


def test_is_the_mean_over_the_other_views(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4 * 6 * 7)  # seven images at a time
    y = clusters() + 100
    learnt = np.arange(30) % 5 != 0
    found = measure_agreement(y, learnt)
    centred = torch.from_numpy(y).double()
    centred -= centred[learnt].mean(dim=(0, 1))
    z = torch.nn.functional.normalize(centred, dim=-1)
    for n, i in itertools.product(range(30), range(4)):
        others = [float(torch.log1p(z[n, i] @ z[n, j])) for j in range(4) if j != i]
        assert float(found.agreement[n, i]) == pytest.approx(sum(others) / 3, abs=1e-5)
    assert found.spread == pytest.approx(float(centred[learnt].square().mean().sqrt()), rel=1e-6)
    torch.testing.assert_close(found.mean, torch.from_numpy(y[learnt].mean(axis=(0, 1))))


@pytest.mark.parametrize("scale", [1e-8, 1e4, 1e28])
def test_scale_changes_nothing(scale):
    learnt = np.ones(30, dtype=bool)
    expected = measure_agreement(clusters(), learnt).agreement
    found = measure_agreement(clusters() * np.float32(scale), learnt).agreement
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_agreeing_and_opposite_views_stay_finite():
    y = clusters(noise=0.0)
    y[0, 1] = -y[0, 0]
    found = measure_agreement(y, np.ones(30, dtype=bool)).agreement
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[5:], torch.full((25, 4), 2.0).double().log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_constant_embeddings_are_refused(noise):
    y = 1 + noise * np.random.default_rng(0).standard_normal((20, 2, 8)).astype(np.float32)
    with pytest.raises(UserError, match="nearly the same embedding"):
        measure_agreement(y, np.ones(20, dtype=bool))


def test_likelihood_is_the_mean_of_the_distributions():
    torch.manual_seed(0)
    x, *others = torch.nn.functional.normalize(torch.randn(4, 50, 12, dtype=torch.float64), dim=-1)
    kappa = 30 * torch.rand(50, dtype=torch.float64)
    agreement = torch.stack([torch.log1p((x * z).sum(-1)) for z in others]).mean(0)
    expected = torch.stack([PowerSpherical(x, kappa).log_prob(z) for z in others]).mean(0)
    uniform = HypersphericalUniform(12).log_prob(x)
    torch.testing.assert_close(log_likelihood(kappa, agreement, 12), expected - uniform)


@pytest.mark.parametrize("kappa", [0.5, 20.0, 900.0])
def test_best_constant_finds_kappa(kappa):
    torch.manual_seed(0)
    mu = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
    z = PowerSpherical(mu, torch.tensor(kappa, dtype=torch.float64)).sample((20000,))
    assert best_constant(torch.log1p(z @ mu), 16) == pytest.approx(kappa, rel=0.05)
