"""The banded products against dense ones and against torchvision, on canvases large enough to take them."""

import pytest
import torch
import torchvision.transforms.v2.functional as F

from vissl_zoo.views import resample
from vissl_zoo.views.resample import BANDED, band_weights, crop_to_planes, filter_weights


def random_boxes(count, height, width, *, whole=False):
    """Fractional boxes (count, 4) inside a canvas, the first of one pixel and the second all of it."""
    generator = torch.Generator().manual_seed(height + width)
    extent = torch.rand(count, 2, generator=generator) * (torch.tensor([height, width]) - 1) + 1
    extent[0], extent[1] = 1, torch.tensor([height, width])
    corner = torch.rand(count, 2, generator=generator) * (torch.tensor([height, width]) - extent)
    boxes = torch.cat([corner, extent], 1)
    return boxes.floor() if whole else boxes


def crops(images, boxes, flip, size, dtype=torch.float32, **options):
    planes = torch.empty(3, len(boxes), size, size, dtype=dtype)
    crop_to_planes(images, torch.arange(len(boxes)) % len(images), boxes, flip, size, planes, **options)
    return planes.transpose(0, 1)


SIZES = [
    (BANDED, BANDED, 64),
    (336, 200, 224),
    (150, 336, 96),
    (130, 140, 37),
    (128, 300, 1),
    (200, 131, 150),
]


@pytest.mark.parametrize("height, width, size", SIZES)
def test_banded_products_equal_dense_ones(height, width, size, monkeypatch):
    images = torch.randint(0, 256, (5, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()
    boxes, flip = random_boxes(12, height, width), torch.arange(12) % 3 == 0
    banded = crops(images, boxes, flip, size, scale=1 / 255)
    monkeypatch.setattr(resample, "BANDED", 10**6)
    assert (banded - crops(images, boxes, flip, size, scale=1 / 255)).abs().max() < 2e-6


@pytest.mark.parametrize("height, width, size", SIZES)
def test_banded_products_equal_torchvision(height, width, size):
    images = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes, flip = random_boxes(8, height, width, whole=True).double(), torch.arange(8) % 2 == 0
    for n, view in enumerate(crops(images, boxes, flip, size, torch.float64)):
        theirs = F.resized_crop(images[n % 4], *boxes[n].long().tolist(), [size, size], antialias=True)
        assert (view - (F.horizontal_flip(theirs) if flip[n] else theirs)).abs().max() < 1e-5


@pytest.mark.parametrize("length, size", [(128, 64), (336, 224), (336, 96), (140, 37)])
def test_bands_hold_every_weight(length, size):
    box = random_boxes(20, length, length).double()
    start, extent = box[:, 0], box[:, 2]
    flip = torch.arange(20) % 2 == 0
    first, width, weights = band_weights(start, extent, length, size, flip)
    dense = torch.zeros(
        20, weights.shape[1] * weights.shape[2], length + weights.shape[3], dtype=torch.float64
    )
    for image in range(20):
        for block, begin in enumerate(first[image].tolist()):
            rows = slice(block * resample.BLOCK, (block + 1) * resample.BLOCK)
            dense[image, rows, begin : begin + width[image]] = weights[image, block, :, : width[image]]
    assert torch.allclose(
        dense[:, :size, :length], filter_weights(start, extent, length, size, flip), atol=1e-12
    )
    assert (first + width.unsqueeze(1) <= length).all()
    assert width[2:].double().mean() < length  # a band is less than everything
