"""Every target on sets whose kinds are known, against one number at a time, and what none may depend on."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from vissl_zoo.uncertainty.clusterings import Clusterings
from vissl_zoo.uncertainty.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_what_lies_between_kinds_is_less_certain(kinds, name):
    y, far = kinds()
    p = TARGETS[name](y, 0)
    assert p.shape == (600, 5)
    assert p.dtype == torch.float32
    assert 0 <= p.min() < p.max() <= 1
    for column in (p[:, 0], p[:, 1:].mean(dim=1)):
        assert spearmanr(column, -far).statistic > 0.5
    assert torch.equal(p, TARGETS[name](y, 0))


@pytest.mark.parametrize("name", TARGETS)
def test_scale_and_shift_change_nothing(kinds, name):
    y, _ = kinds(images=200)
    torch.testing.assert_close(TARGETS[name](8 * y + 4, 0), TARGETS[name](y, 0), atol=0.03, rtol=0)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("images", [10, 11])
def test_a_handful_of_images_and_equal_ones(kinds, name, images):
    y, _ = kinds(images=images, views=2)
    assert torch.isfinite(TARGETS[name](y, 0)).all()
    y[:] = y[:1]
    y[0, 1] *= -1
    assert torch.isfinite(TARGETS[name](y, 0)).all()


def test_view_agreement_is_the_mean_cosine_with_the_other_views(kinds, monkeypatch):
    monkeypatch.setattr("vissl_zoo.uncertainty.view_agreement._CHUNK", 5 * 24 * 7)  # seven images at a time
    y, _ = kinds(images=30)
    found = TARGETS["views"](y, 0)
    z = torch.nn.functional.normalize(torch.from_numpy(y - y[:, 0].mean(axis=0)), dim=-1)
    for n, i in itertools.product(range(30), range(5)):
        cosines = [float(z[n, i] @ z[n, j]) for j in range(1, 5) if j != i]
        assert float(found[n, i]) == pytest.approx(max(0, np.mean(cosines)), abs=1e-5)


def test_cluster_agreement_counts_neighbours_and_clusterings(kinds):
    y, _ = kinds(images=300)
    found = TARGETS["clusters"](y, 3)
    made = Clusterings.fit(y[:, 0], 3)
    _, near = made.neighbours(made.directions(y[:, 0]))
    cluster = made.clusters(made.directions(y[:, 2]))
    for n in range(0, 300, 17):
        shared = [
            float(cluster[n, r] == made.members[m, r]) for m in near[n] for r in range(len(made.centres))
        ]
        assert float(found[n, 2]) == pytest.approx(np.mean(shared), abs=1e-6)


def test_no_image_is_its_own_neighbour_and_neither_is_a_copy(kinds):
    y, _ = kinds(images=200)
    y[7] = y[3]
    made = Clusterings.fit(y[:, 0], 0)
    cosine, near = made.neighbours(made.directions(y[:, 0]))
    assert near.shape == (200, 20)
    assert (near != torch.arange(200)[:, None]).all(dim=1)[[i for i in range(200) if i not in (3, 7)]].all()
    assert cosine.max() < 1
    expected = made.bank @ made.bank.T
    expected.fill_diagonal_(-1)
    np.testing.assert_allclose(cosine[0], expected[0].topk(20).values.mean(), atol=1e-5)


def test_a_large_set_is_sampled(kinds, monkeypatch):
    monkeypatch.setattr("vissl_zoo.uncertainty.clusterings.BANK", 150)
    y, far = kinds(images=400)
    assert len(Clusterings.fit(y[:, 0], 0).bank) == 150
    assert spearmanr(TARGETS["clusters"](y, 0)[:, 0], -far).statistic > 0.4
