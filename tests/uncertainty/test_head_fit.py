"""The fit finds what made the data, and its likelihood is the distribution's."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical
from vissl_zoo.errors import UserError
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.uncertainty.head_fit import fit_head, held_out_rows
from vissl_zoo.uncertainty.targets import best_constant, measure_agreement


def noisy_views(images=400, width=16, seed=0):
    """Embeddings (N, 4, F) whose first entry says how noisy the others are, and that noise (N,)."""
    rng = np.random.default_rng(seed)
    noise = rng.random(images)
    y = rng.standard_normal((images, 1, width)) + noise[:, None, None] * rng.standard_normal(
        (images, 4, width)
    )
    y[:, :, 0] = noise[:, None] - 0.5
    return y.astype(np.float32), noise


def fit(y, kappa_map="exp", **options):
    """(head, its fit, the targets, the images to learn from)"""
    learnt = held_out_rows(len(y), 0.1, seed=0)
    targets = measure_agreement(y, learnt)
    torch.manual_seed(0)
    head = KappaHead(y.shape[2], 16, kappa_map)
    return head, fit_head(head, y, targets, learnt, progress=False, **options), targets, learnt


@torch.no_grad()
def ask(head, y) -> np.ndarray:
    return head(torch.from_numpy(y).flatten(0, -2)).numpy()


@pytest.mark.parametrize(
    "kappa_map, scale, shift", [("exp", 1e20, 0.0), ("exp", 1e-6, 1e-4), ("softplus", 1.0, 0.0)]
)
def test_kappa_follows_the_noise_and_reads_plain_embeddings(kappa_map, scale, shift):
    scale, shift = np.float32(scale), np.float32(shift)
    y = scale * noisy_views()[0] + shift
    head, found, _, learnt = fit(y, kappa_map, steps=150, lr=2e-2)
    assert (found.images, found.held_out, found.views) == (400, 40, 4)
    assert found.log_likelihood > found.constant_log_likelihood + 0.5
    assert spearmanr(found.kappa, found.agreement).statistic > 0.5
    fresh, noise = noisy_views(seed=1)
    assert spearmanr(-ask(head, scale * fresh[:, 0] + shift), noise).statistic > 0.8
    # The same views as they were seen while fitting: the folded scale changes nothing.
    np.testing.assert_allclose(np.sort(ask(head, y[~learnt])), np.sort(found.kappa), rtol=0.02)


def test_log_likelihood_is_over_uniform():
    """Against PowerSpherical and HypersphericalUniform, pair by pair, on views of the held-out images."""
    y = noisy_views(images=60)[0]
    head, found, targets, learnt = fit(y, steps=30)
    centred = torch.from_numpy((y - y[learnt].mean(axis=(0, 1)))[~learnt]).double()
    z = torch.nn.functional.normalize(centred, dim=-1)
    uniform = float(HypersphericalUniform(16).log_prob(z[:1, 0]))
    own = torch.from_numpy(ask(head, y[~learnt])).double().view(-1, 4)
    constant = torch.full_like(own, best_constant(targets.agreement[learnt], 16))
    for kappa, said in ((own, found.log_likelihood), (constant, found.constant_log_likelihood)):
        pairs = [
            PowerSpherical(z[:, i], kappa[:, i]).log_prob(z[:, j])
            for i in range(4)
            for j in range(4)
            if i != j
        ]
        assert said == pytest.approx(float(torch.stack(pairs).mean()) - uniform, abs=1e-3)


def test_the_same_seed_gives_the_same_head():
    y = noisy_views(images=40)[0]
    first, second = (fit(y, steps=5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("count, held", [(10, 1), (14, 1), (100, 10)])
def test_a_tenth_is_held_out(count, held):
    learnt = held_out_rows(count, 0.1, seed=0)
    assert (len(learnt), int((~learnt).sum())) == (count, held)


@pytest.mark.parametrize("kappa_map", ["exp", "softplus"])
def test_a_fit_that_diverges_is_an_error_and_no_head(kappa_map):
    with pytest.raises(UserError, match="learning rate"):
        fit(noisy_views(60)[0], kappa_map, steps=20, lr=1e30)
