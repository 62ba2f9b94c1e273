"""Corruptions grow with their level, belong to an image, and are what other libraries make of the same image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from vissl_zoo.evaluation import corruptions
from vissl_zoo.evaluation.corruptions import CORRUPTIONS, LEVELS, CorruptedViews
from vissl_zoo.inference import CentralCrop

KINDS = list(CORRUPTIONS)


@pytest.fixture
def images():
    """Two smooth images (2, 96, 96, 3), uint8."""
    coarse = np.random.default_rng(0).integers(28, 228, (2, 24, 24, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((96, 96), Image.Resampling.BICUBIC)) for c in coarse]
    )


def spoil(image, kind, level, seed=4):
    return CORRUPTIONS[kind](image, level, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_is_worse_than_the_last(images, kind):
    errors = [np.square(spoil(images[0], kind, level) / 1.0 - images[0]).mean() for level in range(LEVELS)]
    assert (np.diff([0, *errors]) > 0).all()


@pytest.mark.parametrize("level", range(LEVELS))
def test_blur_is_scipys(images, level):
    """But for the borders, which are extended otherwise."""
    sigma = corruptions.BLUR_SIGMA[level] * 96
    expected = gaussian_filter(images[0].astype(float), (sigma, sigma, 0), mode="nearest")
    off = np.abs(spoil(images[0], "blur", level) - expected)
    assert off.mean() < 1.5
    assert np.abs(images[0] - expected).mean() > off.mean()


def test_noise_is_one_pattern_of_growing_strength():
    gray = np.full((64, 64, 3), 128, dtype=np.uint8)
    first, second = (spoil(gray, "noise", level) - 128.0 for level in (1, 2))
    assert np.abs(second - 2 * first).max() <= 1.5  # whole grey levels
    assert first.std() == pytest.approx(255 * corruptions.NOISE_STD[1], rel=0.03)
    assert not np.allclose(first, spoil(gray, "noise", 1, seed=9) - 128.0)


@pytest.mark.parametrize("level", range(LEVELS))
def test_occlusion_covers_its_share_and_what_a_lower_level_covered(level):
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    covered = (spoil(white, "occlusion", level) < 255).all(-1)
    assert covered.mean() == pytest.approx(corruptions.OCCLUDED_AREA[level], rel=0.06)
    if level:
        below = (spoil(white, "occlusion", level - 1) < 255).all(-1)
        assert not (below & ~covered).any()


@pytest.mark.parametrize("level", range(LEVELS))
def test_jpeg_is_what_a_file_holds(images, level):
    buffer = io.BytesIO()
    Image.fromarray(images[1]).save(buffer, "JPEG", quality=corruptions.JPEG_QUALITY[level])
    assert np.array_equal(spoil(images[1], "jpeg", level), np.asarray(Image.open(buffer)))


def test_views_are_all_of_these_for_an_image_alone_or_in_company(images):
    views = CorruptedViews(CentralCrop(96, 1.0, "center", "bilinear", (0.5,) * 3, (0.5,) * 3), 3)
    before, rows = images.copy(), np.array([8, 5])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    both = views(pixels, torch.full((2, 2), 96), rows)
    assert np.array_equal(images, before)
    assert len(both) == views.count == LEVELS * len(KINDS)
    for i in range(2):
        alone = views(pixels[i : i + 1], torch.full((1, 2), 96), rows[i : i + 1])
        told = views.pixels(images[i], rows[i])
        shown = np.concatenate([told[kind] for kind in KINDS])
        for one, view, levels in zip(alone, both, shown, strict=True):
            assert torch.equal(one[0], view[i])
            expected = torch.from_numpy(levels).permute(2, 0, 1) / 255
            torch.testing.assert_close(view[i] * 0.5 + 0.5, expected, atol=1e-6, rtol=0)
