"""The parts of a page that are numbers."""

import numpy as np
import pytest

from vissl_zoo.photos.page import histogram


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
