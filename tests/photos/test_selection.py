"""The four orders against slow, plain versions of themselves."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from vissl_zoo.photos.selection import most_diverse, most_typical, typicality, unit_length


@pytest.fixture
def blobs():
    """Five directions with 40, 30, 20, 10 and 5 images around them, and which each belongs to."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), (40, 30, 20, 10, 5))
    centres = np.linalg.qr(rng.normal(size=(16, 16)))[0][:5]
    return (10 * centres[labels] + rng.normal(0, 0.6, (105, 16))).astype(np.float32), labels


def test_diverse_is_farthest_first(blobs):
    embeddings, _ = blobs
    points = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    chosen = most_diverse(embeddings, 10)
    assert chosen[0] == np.linalg.norm(points - points.mean(axis=0), axis=1).argmin()
    for step in range(1, 10):
        nearest = distances[:, chosen[:step]].min(axis=1)
        assert nearest[chosen[step]] == pytest.approx(nearest.max(), rel=1e-4)


def test_diverse_covers_better_than_chance(blobs):
    embeddings, labels = blobs
    assert set(labels[most_diverse(embeddings, 6)]) == set(range(5))


def test_typical_takes_the_densest_image_of_each_cluster(blobs):
    embeddings, labels = blobs
    chosen = most_typical(embeddings, 5)
    assert labels[chosen].tolist() == [0, 1, 2, 3, 4]  # the largest cluster first
    points = unit_length(embeddings)
    for place in chosen:
        members = np.flatnonzero(labels == labels[place])
        others = min(20, len(members) - 1)
        distances = NearestNeighbors(n_neighbors=others).fit(points[members]).kneighbors()[0]
        assert members[distances.mean(axis=1).argmin()] == place


def test_typicality_is_the_inverse_mean_distance():
    points = np.random.default_rng(0).normal(size=(150, 8))
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 1:21]
    np.testing.assert_allclose(typicality(points), 1 / (distances.mean(axis=1) + 1e-5), rtol=1e-6)
    assert typicality(points[:1]).tolist() == [1]


@pytest.mark.parametrize("choose", [most_diverse, most_typical])
@pytest.mark.parametrize("k", [1, 7, 60, 105])
def test_every_image_once_and_the_same_again(choose, k, blobs):
    embeddings, _ = blobs
    chosen = choose(embeddings, k)
    assert len(set(chosen.tolist())) == k
    np.testing.assert_array_equal(choose(embeddings, k), chosen)


@pytest.mark.parametrize("choose", [most_diverse, most_typical])
def test_all_images_equal(choose):
    assert sorted(choose(np.ones((6, 4), dtype=np.float32), 4).tolist()) in ([0, 1, 2, 3], [0, 1, 2, 3])


def test_more_images_than_clusters(monkeypatch, blobs):
    monkeypatch.setattr("vissl_zoo.photos.selection.MOST_CLUSTERS", 5)
    embeddings, labels = blobs
    assert labels[most_typical(embeddings, 10)].tolist() == [0, 1, 2, 3, 4] * 2
