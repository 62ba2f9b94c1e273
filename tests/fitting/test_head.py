"""The fit finds the κ that made the data, and its likelihood is the distribution's."""

import math

import numpy as np
import pytest
import torch

from vissl_zoo.distributions import HypersphericalUniform, PowerSpherical
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.uncertainty import spearman
from vissl_zoo.fitting.agreement import measure_agreement
from vissl_zoo.fitting.head import best_constant, fit_head, held_out_rows, mean_log_likelihood
from vissl_zoo.networks.kappa_head import KappaHead


def noisy_views(images=400, width=16, seed=0):
    """Embeddings (N, 4, F) whose first entry says how noisy the others are, and that noise (N,)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(images, generator=generator)
    y = torch.randn(images, 1, width, generator=generator) + noise[:, None, None] * torch.randn(
        images, 4, width, generator=generator
    )
    y[:, :, 0] = noise[:, None] - 0.5
    return y, noise.numpy()


def test_likelihood_is_the_distributions():
    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(2, 50, 12, dtype=torch.float64), dim=-1)
    kappa = 30 * torch.rand(50, dtype=torch.float64)
    found = mean_log_likelihood(kappa, torch.log1p((z[0] * z[1]).sum(-1)), 12)
    torch.testing.assert_close(found, PowerSpherical(z[0], kappa).log_prob(z[1]).mean())


@pytest.mark.parametrize("kappa", [0.5, 20.0, 900.0])
def test_best_constant_finds_kappa(kappa):
    torch.manual_seed(0)
    mu = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
    z = PowerSpherical(mu, torch.tensor(kappa, dtype=torch.float64)).sample((20000,))
    assert best_constant(torch.log1p(z @ mu), 16) == pytest.approx(kappa, rel=0.05)


@pytest.mark.parametrize("kappa_map", ["exp", "softplus"])
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1e20, 0.0), (1e-6, 1e-4)])
def test_kappa_follows_the_noise_and_reads_plain_embeddings(make_features, kappa_map, scale, shift):
    y = noisy_views()[0]
    y = scale * y + shift
    features = make_features(y)
    learnt = held_out_rows(len(y), 0.1, seed=0)
    agreement = measure_agreement(features, learnt)
    torch.manual_seed(0)
    head = KappaHead(16, 16, kappa_map)
    fit = fit_head(head, features, agreement, learnt, steps=300, lr=1e-2, progress=False)
    assert fit.log_likelihood > fit.constant_log_likelihood + 0.5
    assert spearman(fit.kappa, fit.agreement) > 0.5
    fresh, fresh_noise = noisy_views(seed=1)
    with torch.no_grad():
        kappa = head(scale * fresh[:, 0] + shift).numpy()
        again = head(y[~learnt].flatten(0, 1)).numpy()
    assert spearman(-kappa, fresh_noise) > 0.8
    # The same views as they were seen while fitting: the folded scale changes nothing.
    np.testing.assert_allclose(np.sort(again), np.sort(fit.kappa), rtol=0.02)


def test_log_likelihood_is_over_uniform(make_features):
    """Against PowerSpherical and HypersphericalUniform, pair by pair, on views of the held-out images."""
    y, _ = noisy_views(images=60)
    features = make_features(y)
    learnt = held_out_rows(60, 0.1, seed=0)
    agreement = measure_agreement(features, learnt)
    torch.manual_seed(0)
    head = KappaHead(16, 16, "exp")
    fit = fit_head(head, features, agreement, learnt, steps=30, progress=False)
    z = torch.nn.functional.normalize((y - y[learnt].mean(dim=(0, 1)))[~learnt].double(), dim=-1)
    with torch.no_grad():
        kappa = head(y[~learnt].flatten(0, 1)).double().view(-1, 4)
    pairs = [
        PowerSpherical(z[:, i], kappa[:, i]).log_prob(z[:, j]) for i in range(4) for j in range(4) if i != j
    ]
    uniform = float(HypersphericalUniform(16).log_prob(z[:1, 0]))
    assert fit.log_likelihood == pytest.approx(float(torch.stack(pairs).mean()) - uniform, abs=0.02)
    constant = torch.tensor(best_constant(agreement.log1p_cosine[learnt], 16), dtype=torch.float64)
    pairs = [
        PowerSpherical(z[:, i], constant).log_prob(z[:, j]) for i in range(4) for j in range(4) if i != j
    ]
    assert fit.constant_log_likelihood == pytest.approx(float(torch.stack(pairs).mean()) - uniform, abs=0.02)


def test_the_same_seed_gives_the_same_head(make_features):
    y, _ = noisy_views(images=40)
    features, learnt = make_features(y), held_out_rows(40, 0.1, seed=0)
    agreement = measure_agreement(features, learnt)
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(KappaHead(16, 16, "exp"))
        fit_head(heads[-1], features, agreement, learnt, steps=5, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(*(h.state_dict().values() for h in heads), strict=True))


@pytest.mark.parametrize("count, held", [(10, 1), (14, 1), (100, 10)])
def test_a_tenth_is_held_out(count, held):
    rows = held_out_rows(count, 0.1, seed=0)
    assert int((~rows).sum()) == held
    assert math.isclose(len(rows), count)


@pytest.mark.parametrize("kappa_map", ["exp", "softplus"])
def test_a_fit_that_diverges_is_an_error_and_no_head(make_features, kappa_map):
    features = make_features(noisy_views(60)[0])
    learnt = held_out_rows(60, 0.1, seed=0)
    head = KappaHead(16, 16, kappa_map=kappa_map)
    with pytest.raises(UserError, match="learning rate"):
        fit_head(
            head, features, measure_agreement(features, learnt), learnt, steps=20, lr=1e30, progress=False
        )
