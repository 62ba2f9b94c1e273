"""The parts of a page that are numbers: the histogram, and a map where neighbours stay neighbours."""

import numpy as np
import pytest

from vissl_zoo.photos.page import histogram, project


def test_histogram_counts_every_image():
    kappa = np.random.default_rng(0).gamma(3, 100, 1000)
    bars = histogram(kappa)
    counts = [int(bar.label.split()[-2]) for bar in bars]
    assert sum(counts) == 1000
    assert [bar.height for bar in bars] == pytest.approx([c / max(counts) for c in counts])
    assert max(bar.x for bar in bars) < 1


@pytest.mark.parametrize("kappa, bars", [([], 0), ([3.0], 1), ([3.0, 3.0], 1), ([3.0, 4.0], 32)])
def test_degenerate_histograms(kappa, bars):
    assert len(histogram(np.array(kappa))) == bars


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_groups_stay_apart(how):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    embeddings = 5 * np.eye(8)[labels] + rng.normal(0, 0.3, (60, 8))
    places = project(embeddings, how)
    assert places.min() == 0
    assert places.max() == 1
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    np.testing.assert_array_equal(project(embeddings, how), places)


@pytest.mark.parametrize("shape", [(2, 4), (3, 1), (12, 1), (5, 3)])
@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_few_images_and_few_dimensions(shape, how):
    places = project(np.random.default_rng(0).normal(size=shape), how)
    assert places.shape == (shape[0], 2)
    assert ((places >= 0) & (places <= 1)).all()


def test_all_equal():
    np.testing.assert_array_equal(project(np.ones((30, 4))), np.full((30, 2), 0.5))
