"""Crop and resize against torchvision's resized_crop, and the filter's weights themselves."""

import random

import pytest
import torch
import torchvision.transforms.v2.functional as F

from vissl_zoo.views.view_crops import add_rows, crop_sideways, crop_taps, filter_taps, taps_needed


def random_boxes(height, width, number):
    generator = random.Random(height * 1000 + width)
    boxes = [(0, 0, height, width), (0, 0, 1, 1), (height - 1, width - 1, 1, 1), (0, 0, height, 1)]
    for _ in range(number - len(boxes)):
        h, w = generator.randint(1, height), generator.randint(1, width)
        boxes.append((generator.randint(0, height - h), generator.randint(0, width - w), h, w))
    return torch.tensor(boxes)


def resized_crop(images, boxes, flip, size):
    """Crops (B, 3, size, size) of images (B, 3, H, W), a box each, upright."""
    canvas = images.shape[2:]
    filters = crop_taps(boxes.to(images), flip, canvas, size, taps_needed(boxes, canvas, size))
    return crop_sideways(images, torch.arange(len(images)), *filters).transpose(2, 3)


@pytest.mark.parametrize(
    "height, width, size",
    [
        (32, 32, 32),
        (32, 32, 64),
        (96, 96, 64),
        (40, 57, 32),
        (57, 40, 33),
        (7, 64, 16),
        (64, 64, 1),
        (336, 200, 224),
        (150, 336, 96),
        (1, 1, 5),
    ],
)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.float64, 2e-6)])
def test_resized_crop_equals_torchvision(height, width, size, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(height, width, 20)
    images = torch.rand(20, 3, height, width, generator=generator, dtype=dtype)
    flip = torch.rand(20, generator=generator) < 0.5
    ours = resized_crop(images, boxes, flip, size)
    for image, box, mirrored, view in zip(images, boxes.tolist(), flip, ours, strict=True):
        theirs = F.resized_crop(image, *box, [size, size], antialias=True)
        if mirrored:
            theirs = F.horizontal_flip(theirs)
        assert (view - theirs).abs().max() < tolerance


def dense(start, extent, length, size):
    """The filter as matrices (n, size, length)."""
    boxes = torch.stack([start, start, extent, extent], 1)
    first, weights = filter_taps(start, extent, length, size, taps_needed(boxes, (length, length), size)[0])
    index = first.unsqueeze(2) + torch.arange(weights.shape[2])
    return torch.zeros(len(start), size, length, dtype=torch.float64).scatter_(2, index, weights)


def test_weights_sum_to_one_and_stay_inside_fractional_boxes():
    generator = torch.Generator().manual_seed(0)
    extent = torch.rand(200, dtype=torch.float64, generator=generator) * 39 + 0.01
    start = torch.rand(200, dtype=torch.float64, generator=generator) * (40 - extent)
    weights = dense(start, extent, 40, 16)
    assert torch.allclose(weights.sum(2), torch.ones(200, 16, dtype=torch.float64))
    assert (weights >= 0).all()
    pixel = torch.arange(40)
    outside = (pixel + 1 <= start.unsqueeze(1)) | (pixel >= (start + extent).unsqueeze(1))
    assert (weights * outside.unsqueeze(1)).max() == 0


def test_weights_change_smoothly_with_the_box():
    """A box that moves by a thousandth of a pixel does not make a pixel jump in or out."""
    starts = torch.arange(0, 6, 0.001, dtype=torch.float64)
    weights = dense(starts, torch.full_like(starts, 9.5), 16, 8)
    assert (weights[1:] - weights[:-1]).abs().max() < 0.005


@pytest.mark.parametrize("length, size", [(128, 64), (336, 224), (336, 96), (140, 37), (20, 64), (64, 64)])
def test_the_taps_that_are_counted_are_enough(length, size):
    """More of them change nothing: the filter is not cut off, be the boxes whole or fractional."""
    generator = torch.Generator().manual_seed(0)
    extent = torch.rand(100, dtype=torch.float64, generator=generator) * (length - 1) + 1
    start = torch.rand(100, dtype=torch.float64, generator=generator) * (length - extent)
    extent[::2], start[::2] = extent[::2].floor(), start[::2].floor()
    extent[0], start[0] = length, 0
    most = filter_taps(start, extent, length, size, length)
    full = torch.zeros(100, size, length, dtype=torch.float64).scatter_(
        2, most.first.unsqueeze(2) + torch.arange(length), most.weights
    )
    assert (dense(start, extent, length, size) - full).abs().max() < 1e-12


def test_devices_without_bags_of_rows_add_them_up():
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(50, 7, generator=generator, dtype=torch.float64)
    index = torch.randint(0, 50, (20, 4), generator=generator)
    weights = torch.rand(20, 4, generator=generator, dtype=torch.float64)
    expected = (rows[index] * weights.unsqueeze(2)).sum(1)
    bags = torch.nn.functional.embedding_bag(index, rows, mode="sum", per_sample_weights=weights)
    assert torch.allclose(add_rows(rows, index, weights), expected)
    assert torch.allclose(bags, expected)
