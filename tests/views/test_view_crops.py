"""Crop boxes against torchvision's RandomResizedCrop, one by one and in distribution."""

import math
import random

import pytest
import torch
import torchvision.transforms.v2 as v2
from scipy.stats import ks_2samp

from vissl_zoo.views import ViewPipeline
from vissl_zoo.views.view_crops import choose_boxes


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
