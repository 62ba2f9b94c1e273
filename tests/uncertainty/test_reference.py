"""What a set says of an image: the order of four scores, values that are the set's own, and nothing of the company."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from vissl_zoo.uncertainty.reference import Reference


@pytest.mark.parametrize("views", [0, 3])
def test_what_lies_between_kinds_is_less_certain(kinds, views):
    y, far = kinds(images=500)
    y, kappa = y[:, : 1 + views], np.exp(np.random.default_rng(0).standard_normal(500)).astype(np.float32)
    found = Reference.fit(y[:400], kappa[:400], 24).uncertainty(y, kappa)
    assert found.dtype == np.float32
    assert found.shape == (500,)
    assert 0 <= found.min() < found.max() <= 1
    assert spearmanr(found[400:], far[400:]).statistic > 0.5  # although κ here is noise
    assert spearmanr(found, kappa).statistic < -0.1


def test_an_image_is_answered_alone_as_in_company(kinds):
    y, _ = kinds(images=300)
    kappa = np.linspace(1, 50, 300, dtype=np.float32)
    reference = Reference.fit(y[:, :1], kappa, 24)
    whole = reference.uncertainty(y[:, :1], kappa)
    for n in (0, 17, 299):
        alone = reference.uncertainty(y[n : n + 1, :1], kappa[n : n + 1])[0]
        assert alone == pytest.approx(whole[n], abs=2e-2)  # a rounding may move it by a place of the 300


def test_equal_images_are_equally_certain(kinds):
    y, _ = kinds(images=200)
    y[5] = y[4]
    kappa = np.ones(200, dtype=np.float32)
    found = Reference.fit(y[:, :1], kappa, 24).uncertainty(y[:, :1], kappa)
    assert found[4] == pytest.approx(found[5], abs=1e-6)
