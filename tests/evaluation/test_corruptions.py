"""Corruptions grow with their level, belong to an image, and are what other libraries make of the same image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from vissl_zoo.evaluation import corruptions
from vissl_zoo.evaluation.corruptions import CORRUPTIONS, LEVELS, corrupt

KINDS = list(CORRUPTIONS)
SEEDS = np.array([[0, 4], [0, 9]])


@pytest.fixture
def images():
    """Two smooth images (2, 3, 48, 48), uint8."""
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 200 + 28
    return torch.nn.functional.interpolate(coarse, 48, mode="bilinear").byte()


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_is_worse_than_the_last(images, kind):
    clean = images.float() / 255
    errors = [
        (corrupt(images, kind, level, SEEDS) - clean).square().mean((1, 2, 3)) for level in range(LEVELS)
    ]
    assert (torch.stack(errors).diff(dim=0) > 0).all()
    assert (errors[0] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_spoilt_by_itself_and_the_same_each_time(images, kind):
    before = images.clone()
    both = corrupt(images, kind, 2, SEEDS)
    assert torch.equal(images, before)
    assert both.shape == images.shape
    assert both.dtype == torch.float32
    assert 0 <= both.min() <= both.max() <= 1
    for i in range(2):
        alone = corrupt(images[i : i + 1], kind, 2, SEEDS[i : i + 1])
        torch.testing.assert_close(alone, both[i : i + 1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", range(LEVELS))
def test_blur_is_scipys(images, level):
    sigma = corruptions.BLUR_SIGMA[level] * 48
    radius = int(np.ceil(4 * sigma))
    expected = images.numpy().astype(np.float64) / 255
    for axis in (2, 3):
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
    np.testing.assert_allclose(corrupt(images, "blur", level, SEEDS).numpy(), expected, atol=1e-5)


def test_noise_is_one_pattern_of_growing_strength():
    gray = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    first, second = (corrupt(gray, "noise", level, SEEDS) - 128 / 255 for level in (0, 1))
    torch.testing.assert_close(second, 2 * first, atol=1e-5, rtol=0)
    assert first.std().item() == pytest.approx(corruptions.NOISE_STD[0], rel=0.03)
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("level", range(LEVELS))
def test_occlusion_covers_its_share_and_what_a_lower_level_covered(images, level):
    white = torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    covered = (corrupt(white, "occlusion", level, SEEDS) < 1).all(1)
    assert covered.float().mean().item() == pytest.approx(corruptions.OCCLUDED_AREA[level], rel=0.06)
    if level:
        below = (corrupt(white, "occlusion", level - 1, SEEDS) < 1).all(1)
        assert not (below & ~covered).any()


@pytest.mark.parametrize("level", range(LEVELS))
def test_jpeg_is_what_a_file_holds(images, level):
    buffer = io.BytesIO()
    Image.fromarray(images[1].permute(1, 2, 0).numpy()).save(
        buffer, "JPEG", quality=corruptions.JPEG_QUALITY[level]
    )
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255
    torch.testing.assert_close(corrupt(images, "jpeg", level, SEEDS)[1], expected)
