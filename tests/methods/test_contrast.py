"""SimCLR and Barlow Twins against loops in NumPy, and against what must not change them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from vissl_zoo.methods.barlow_twins import BarlowLatents, standardise
from vissl_zoo.methods.base import Latents

B, D = 6, 16


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spherical(views, standard):
    z = normalize(random(views, B, D), dim=-1).requires_grad_()
    return Latents(embedding=z, mean=z, target=z[:standard], kappa=torch.ones(views, B))


@pytest.mark.parametrize(("views", "standard"), [(2, 2), (4, 2), (3, 3)])
def test_simclr_is_nt_xent(build, views, standard):
    method = build("simclr", temperature=0.3)
    latents = spherical(views, standard)
    z = latents.mean.detach().numpy()
    losses = []
    for i in range(views):
        for j in range(standard):
            if i == j:
                continue
            for b in range(B):
                others = [z[s, c] for s in range(standard) for c in range(B) if (s, c) != (i, b)]
                scores = np.exp([z[i, b] @ other / 0.3 for other in others])
                losses.append(-np.log(np.exp(z[i, b] @ z[j, b] / 0.3) / scores.sum()))
    objective = method.alignment(latents) + method.uniformity(latents)
    assert -objective.item() == pytest.approx(np.mean(losses), abs=1e-10)
    if (views, standard) == (2, 2):
        assert len(others) == 2 * B - 1


def test_simclr_of_two_views_is_a_cross_entropy(build):
    """The same number from torch's cross-entropy over the 2B × 2B matrix, a third way to write it."""
    latents = spherical(2, 2)
    flat = latents.mean.detach().flatten(0, 1)
    logits = flat @ flat.T / 0.2
    logits.fill_diagonal_(-torch.inf)
    labels = torch.arange(2 * B).roll(B)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    method = build("simclr")
    torch.testing.assert_close(-(method.alignment(latents) + method.uniformity(latents)).detach(), expected)


def test_simclr_does_not_feel_a_rotation_but_feels_a_wrong_partner(build):
    method = build("simclr")
    latents = spherical(2, 2)
    rotation = torch.linalg.qr(random(D, D, seed=4)).Q
    z = latents.mean.detach()

    def loss(z):
        one = Latents(z, z, z, torch.ones(2, B))
        return -(method.alignment(one) + method.uniformity(one))

    torch.testing.assert_close(loss(z @ rotation), loss(z))
    aligned = torch.stack([z[0], z[0]])
    assert loss(aligned) < loss(torch.stack([z[0], z[0].roll(1, 0)]))


def correlated(views, standard, scale=0.024, weight=0.0051, seed=0):
    z = random(views, B, D, seed=seed) * 3 + 1
    sphere = normalize(z, dim=-1)
    return z, BarlowLatents(
        z, sphere, sphere[:standard], torch.ones(views, B), standardised=standardise(z, eps=0.0)
    )


@pytest.mark.parametrize(("views", "standard"), [(2, 2), (4, 2)])
def test_barlow_twins_is_the_published_sum(build, views, standard):
    method = build("barlow_twins")
    z, latents = correlated(views, standard)
    z = z.numpy()
    z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True)  # population deviation, as batch norm takes
    losses = []
    for i in range(views):
        for j in range(standard):
            if i != j:
                c = np.corrcoef(z[i].T, z[j].T)[:D, D:]
                on = ((np.diag(c) - 1) ** 2).sum()
                off = (c**2).sum() - (np.diag(c) ** 2).sum()
                losses.append(((i, j), 0.024 * (on + 0.0051 * off)))
    # Each unordered pair once: standard pairs come twice in the loop, with the same value.
    once = {frozenset(pair): value for pair, value in losses}
    objective = method.alignment(latents) + method.uniformity(latents)
    assert -objective.item() == pytest.approx(np.mean(list(once.values())), abs=1e-10)


def test_barlow_twins_does_not_feel_scale_or_shift_of_a_feature(build):
    method = build("barlow_twins")
    z, _ = correlated(2, 2)
    moved = z * (1 + random(D, seed=2).abs()) + random(D, seed=3)

    def loss(z):
        sphere = normalize(z, dim=-1)
        latents = BarlowLatents(z, sphere, sphere, torch.ones(2, B), standardised=standardise(z, eps=0.0))
        return method.alignment(latents) + method.uniformity(latents)

    torch.testing.assert_close(loss(moved), loss(z))
    same = torch.stack([z[0], z[0]])
    sphere = normalize(same, dim=-1)
    latents = BarlowLatents(same, sphere, sphere, torch.ones(2, B), standardised=standardise(same, eps=0.0))
    assert method.alignment(latents).item() == pytest.approx(0.0, abs=1e-12)  # a perfect diagonal


def test_options_out_of_range_are_refused(build):
    with pytest.raises(ValueError, match="temperature"):
        build("simclr", temperature=0.0)
    with pytest.raises(ValueError, match="scale"):
        build("barlow_twins", scale=-1.0)
