"""Gaussian blur against torchvision's, with the same window."""

import pytest
import torch
import torchvision.transforms.v2.functional as F

from vissl_zoo.views.blur import BLOCK, blur_matrix, gaussian_blur

SIGMAS = [0.1, 0.4, 0.9, 1.5, 2.0]


def images(size):
    return torch.rand(len(SIGMAS), 3, size, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("size", [9, 32, BLOCK, 2 * BLOCK + 5])
def test_blur_equals_torchvision(size):
    batch = images(size)
    ours = gaussian_blur(batch, torch.tensor(SIGMAS), radius=8)
    for image, sigma, view in zip(batch, SIGMAS, ours, strict=True):
        assert (view - F.gaussian_blur(image, [17, 17], [sigma, sigma])).abs().max() < 3e-6


def test_window_of_a_tiny_view_ends_where_reflection_does():
    batch = images(5)
    ours = gaussian_blur(batch, torch.tensor(SIGMAS), radius=8)
    for image, sigma, view in zip(batch, SIGMAS, ours, strict=True):
        assert (view - F.gaussian_blur(image, [9, 9], [sigma, sigma])).abs().max() < 3e-6


def test_window_of_four_sigma_loses_less_than_a_gray_level():
    """Against a window six times the standard deviation wide to each side."""
    batch = images(32)
    narrow, wide = (gaussian_blur(batch, torch.tensor(SIGMAS), radius) for radius in (8, 12))
    assert 0 < (narrow - wide).abs().max() < 0.1 / 255


def test_weights_that_slow_a_processor_down_are_zero():
    """Numbers near the least that float32 has take a hundred times as long as others."""
    matrix = blur_matrix(torch.linspace(0.1, 2, 500), 32, 8)
    assert (matrix[matrix > 0] >= 1e-15).all()


@pytest.mark.parametrize("size, radius", [(1, 0), (2, 1), (20, 6), (70, 8)])
def test_matrix_rows_sum_to_one(size, radius):
    matrix = blur_matrix(torch.tensor(SIGMAS, dtype=torch.float64), size, radius)
    assert torch.allclose(matrix.sum(2), torch.ones(len(SIGMAS), size, dtype=torch.float64))
    index = torch.arange(size)
    assert (matrix[:, (index - index.unsqueeze(1)).abs() > radius] == 0).all()
