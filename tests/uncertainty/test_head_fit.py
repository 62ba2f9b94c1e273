"""The fit finds what made the target, and its head reads plain embeddings."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from vissl_zoo.errors import UserError
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.uncertainty.head_fit import fit_head, held_out_rows


def seen(images=400, width=16, seed=0) -> tuple[np.ndarray, torch.Tensor]:
    """Embeddings (N, 5, F) whose first entry is the image's and tells p, and p (N, 5)."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((images, 5, width)).astype(np.float32)
    y[:, :, 0] = y[:, :1, 0]
    return y, torch.sigmoid(torch.from_numpy(2 * y[:, :, 0] - 1))


def fit(y, p, kappa_map="exp", **options):
    """(head, its fit, the images to learn from)"""
    learnt = held_out_rows(len(y), 0.1, seed=0)
    torch.manual_seed(0)
    head = KappaHead(y.shape[2], 16, kappa_map)
    return head, fit_head(head, y, p, learnt, progress=False, **options), learnt


@torch.no_grad()
def ask(head, y) -> np.ndarray:
    return head(torch.from_numpy(y)).numpy()


@pytest.mark.parametrize(
    "kappa_map, scale, shift", [("exp", 1e20, 0.0), ("exp", 1e-6, 1e-4), ("softplus", 1.0, 0.0)]
)
def test_the_uncertainty_becomes_one_minus_p_of_plain_embeddings(kappa_map, scale, shift):
    scale, shift = np.float32(scale), np.float32(shift)
    y, p = seen()
    head, found, learnt = fit(scale * y + shift, p, kappa_map, steps=300, lr=1e-2)
    assert (found.images, found.held_out, found.views) == (400, 40, 4)
    assert found.cross_entropy < found.constant_cross_entropy - 0.05
    fresh, chance = seen(seed=1)
    kappa = ask(head, scale * fresh[:, 0] + shift)
    assert spearmanr(kappa, chance[:, 0]).statistic > 0.8
    assert np.abs(15 / (15 + kappa) - (1 - chance[:, 0].numpy())).mean() < 0.12
    # The same images as they were seen while fitting: the folded scale changes nothing.
    np.testing.assert_allclose(ask(head, (scale * y + shift)[~learnt, 0]), found.kappa, rtol=0.02)
    np.testing.assert_allclose(found.aim, p[~learnt, 0].clamp(1e-3, 1 - 1e-3), rtol=1e-5)


def test_a_clean_image_learns_what_it_and_its_views_say():
    y, p = seen(images=60)
    p[:, 0] = 0.0
    _, found, learnt = fit(y, p, steps=30)
    np.testing.assert_allclose(found.aim, p[~learnt, 1:].mean(dim=1) / 2, rtol=1e-5)


def test_the_constant_is_the_entropy_of_the_mean():
    y, p = seen(images=60)
    _, found, learnt = fit(y, p, steps=30)
    mean, aim = float(p[learnt, 0].mean()), p[~learnt, 0].double().numpy()
    expected = -(aim * np.log(mean) + (1 - aim) * np.log(1 - mean)).mean()
    assert found.constant_cross_entropy == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_gives_the_same_head_and_leaves_the_random_state_alone():
    y, p = seen(images=40)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    learnt, heads = held_out_rows(40, 0.1, seed=0), [KappaHead(16, 16, "exp") for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    before = torch.get_rng_state()
    for head in heads:
        fit_head(head, y, p, learnt, steps=15, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(state)
    first, second = (head.state_dict() for head in heads)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("count, held", [(10, 1), (14, 1), (100, 10)])
def test_a_tenth_is_held_out(count, held):
    learnt = held_out_rows(count, 0.1, seed=0)
    assert (len(learnt), int((~learnt).sum())) == (count, held)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_constant_embeddings_are_refused(noise):
    y = 1 + noise * np.random.default_rng(0).standard_normal((20, 3, 8)).astype(np.float32)
    with pytest.raises(UserError, match="nearly the same embedding"):
        fit(y, torch.full((20, 3), 0.5))


@pytest.mark.parametrize("kappa_map", ["exp", "softplus"])
def test_a_fit_that_diverges_is_an_error_and_no_head(kappa_map):
    with pytest.raises(UserError, match="learning rate"):
        fit(*seen(60), kappa_map, steps=20, lr=1e30)
