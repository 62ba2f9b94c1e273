"""The agreement of views against one number at a time, and what it does not depend on."""

import itertools

import pytest
import torch

from vissl_zoo.errors import UserError
from vissl_zoo.fitting import agreement as module
from vissl_zoo.fitting.agreement import measure_agreement


def clusters(images=30, views=4, width=6, noise=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(images, 1, width, generator=generator)
    return centres + noise * torch.randn(images, views, width, generator=generator)


def test_is_the_mean_over_the_other_views(make_features, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4 * 6 * 7)  # seven images at a time
    y = clusters() + 100
    fitted = torch.arange(30) % 5 != 0
    found = measure_agreement(make_features(y), fitted)
    z = torch.nn.functional.normalize((y - y[fitted].mean(dim=(0, 1))).double(), dim=-1)
    for n, i in itertools.product(range(30), range(4)):
        others = [float(torch.log1p(z[n, i] @ z[n, j])) for j in range(4) if j != i]
        assert float(found.log1p_cosine[n, i]) == pytest.approx(sum(others) / 3, abs=0.02)
    assert found.spread == pytest.approx(
        float((y[fitted] - y[fitted].mean(dim=(0, 1))).square().mean().sqrt()), rel=1e-3
    )


@pytest.mark.parametrize("scale", [1e-8, 1e4, 1e28])
def test_scale_changes_nothing(make_features, scale):
    fitted = torch.ones(30, dtype=torch.bool)
    expected = measure_agreement(make_features(clusters()), fitted).log1p_cosine
    found = measure_agreement(make_features(clusters() * scale), fitted).log1p_cosine
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_agreeing_and_opposite_views_stay_finite(make_features):
    y = clusters(noise=0.0)
    y[0, 1] = -y[0, 0]
    found = measure_agreement(make_features(y), torch.ones(30, dtype=torch.bool)).log1p_cosine
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[5:], torch.full((25, 4), 2.0).double().log(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_constant_features_are_refused(make_features, noise):
    y = torch.ones(20, 2, 8) + noise * torch.randn(20, 2, 8)
    with pytest.raises(UserError, match="nearly the same embedding"):
        measure_agreement(make_features(y), torch.ones(20, dtype=torch.bool))
