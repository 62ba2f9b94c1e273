"""Crop boxes and resampling against torchvision's RandomResizedCrop and resized_crop."""

import math
import random

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from scipy.stats import ks_2samp

from vissl_zoo.views import ViewPipeline
from vissl_zoo.views.crops import choose_boxes, resized_crop
from vissl_zoo.views.resample import filter_weights


def boxes_one_by_one(area, aspect, position, size, ratio):
    """The loop over attempts for one image, from the same uniform numbers."""
    height, width = size
    for share, shape in zip(area, aspect, strict=True):
        w = round(math.sqrt(share * height * width * shape))
        h = round(math.sqrt(share * height * width / shape))
        if 0 < w <= width and 0 < h <= height:
            return [int(position[0] * (height - h + 1)), int(position[1] * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.05, 0.2), (0.9, 1.0)])
def test_boxes_equal_the_loop_over_attempts(scale):
    generator = random.Random(0)
    sizes = [(generator.randint(1, 400), generator.randint(1, 400)) for _ in range(300)]
    sizes += [(1, 1), (1, 300), (300, 1), (20, 300), (300, 20)]
    pipeline = ViewPipeline(8, scale=scale)
    draws = pipeline.draw(len(sizes), step=0)
    boxes = pipeline.boxes(draws, torch.tensor(sizes))
    assert boxes.shape == (2, len(sizes), 4)
    assert boxes.dtype == torch.int64
    for view in range(2):
        for image, size in enumerate(sizes):
            numbers = [t[view, image].tolist() for t in (draws.area, draws.aspect, draws.position)]
            assert boxes[view, image].tolist() == boxes_one_by_one(*numbers, size, pipeline.ratio)


def test_boxes_fill_the_room_and_stay_inside():
    """The largest position below 1 reaches the last place and goes no further."""
    sizes = torch.tensor([[10, 20], [10, 20]])
    area, aspect = torch.full((2, 10), 0.5).double(), torch.ones(2, 10).double()
    position = torch.tensor([[0.0, 0.0], [1 - 2.0**-53, 1 - 2.0**-53]], dtype=torch.float64)
    boxes = choose_boxes(area, aspect, position, sizes, (3 / 4, 4 / 3))
    assert boxes.tolist() == [[0, 0, 10, 10], [0, 10, 10, 10]]


@pytest.mark.parametrize("size", [(32, 32), (375, 500), (48, 200), (20, 300), (300, 20)])
@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.05, 0.2)])
def test_boxes_are_distributed_as_torchvision_draws_them(size, scale):
    """Kolmogorov-Smirnov tests of area, aspect and centre, also where most attempts do not fit."""
    number = 1500
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=scale)
    image = torch.empty(3, *size, dtype=torch.uint8)
    params = [crop.make_params([image]) for _ in range(number)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in params]).double()
    pipeline = ViewPipeline(8, scale=scale, standard=1)
    sizes = torch.tensor([size] * number)
    ours = pipeline.boxes(pipeline.draw(number, 0), sizes)[0].double()

    def features(boxes):
        top, left, height, width = boxes.unbind(1)
        return [height * width, width / height, top + height / 2, left + width / 2]

    for a, b in zip(features(ours), features(theirs), strict=True):
        assert ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-3


def random_boxes(height, width, number):
    generator = random.Random(height * 1000 + width)
    boxes = [(0, 0, height, width), (0, 0, 1, 1), (height - 1, width - 1, 1, 1), (0, 0, height, 1)]
    for _ in range(number - len(boxes)):
        h, w = generator.randint(1, height), generator.randint(1, width)
        boxes.append((generator.randint(0, height - h), generator.randint(0, width - w), h, w))
    return torch.tensor(boxes)


@pytest.mark.parametrize(
    "height, width, size",
    [(32, 32, 32), (32, 32, 64), (96, 96, 64), (40, 57, 32), (57, 40, 33), (7, 64, 16), (64, 64, 1)],
)
def test_resized_crop_equals_torchvision(height, width, size):
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(height, width, 40)
    images = torch.rand(40, 3, height, width, generator=generator)
    flip = torch.rand(40, generator=generator) < 0.5
    ours = resized_crop(images, boxes.float(), flip, size)
    for image, box, mirrored, view in zip(images, boxes.tolist(), flip, ours, strict=True):
        theirs = F.resized_crop(image, *box, [size, size], antialias=True)
        if mirrored:
            theirs = F.horizontal_flip(theirs)
        assert (view - theirs).abs().max() < 1e-5


def test_weights_sum_to_one_and_stay_inside_fractional_boxes():
    generator = torch.Generator().manual_seed(0)
    extent = torch.rand(200, dtype=torch.float64, generator=generator) * 39 + 0.01
    start = torch.rand(200, dtype=torch.float64, generator=generator) * (40 - extent)
    weights = filter_weights(start, extent, 40, 16)
    assert torch.allclose(weights.sum(2), torch.ones(200, 16, dtype=torch.float64))
    assert (weights >= 0).all()
    pixel = torch.arange(40)
    outside = (pixel + 1 <= start.unsqueeze(1)) | (pixel >= (start + extent).unsqueeze(1))
    assert (weights * outside.unsqueeze(1)).max() == 0


def test_weights_change_smoothly_with_the_box():
    """A box that moves by a thousandth of a pixel does not make a pixel jump in or out."""
    starts = torch.arange(0, 6, 0.001, dtype=torch.float64)
    weights = filter_weights(starts, torch.full_like(starts, 9.5), 16, 8)
    assert (weights[1:] - weights[:-1]).abs().max() < 0.005
