"""Random numbers: determinism, independence of the world size, and their distributions."""

import math

import pytest
import torch
from scipy.stats import chisquare, kstest

from vissl_zoo.views import ViewDraws, ViewPipeline
from vissl_zoo.views.draws import uniform_table

FIELDS = list(ViewDraws.__dataclass_fields__)


def same(a, b):
    return [name for name in FIELDS if torch.equal(getattr(a, name), getattr(b, name))]


def test_draws_depend_on_seed_and_step_alone():
    pipeline = ViewPipeline(32)
    torch.manual_seed(1)
    first = pipeline.draw(16, 3)
    torch.manual_seed(2)
    assert same(first, ViewPipeline(64).draw(16, 3)) == FIELDS
    assert same(first, pipeline.draw(16, 4)) == []
    assert same(first, ViewPipeline(32, seed=1).draw(16, 3)) == []


def test_neighbouring_seeds_do_not_share_steps():
    tables = [uniform_table(1, 1, 3, seed, step) for seed in range(8) for step in range(8)]
    assert len({tuple(table.flatten().tolist()) for table in tables}) == 64


def test_views_and_images_differ():
    draws = ViewPipeline(32).draw(4, 0)
    assert len(draws.sigma.flatten().unique()) == 8
    assert len(draws.area.flatten().unique()) == 80


@pytest.mark.parametrize("world_size", [2, 4])
def test_slices_by_rank_are_the_global_batch(world_size):
    whole = ViewPipeline(32, low=2, low_size=16).draw(16, 5)
    share = 16 // world_size
    parts = [whole[rank * share : (rank + 1) * share] for rank in range(world_size)]
    assert all(len(part) == share and part.views == 4 for part in parts)
    for name in FIELDS:
        joined = torch.cat([getattr(part, name) for part in parts], 1)
        assert torch.equal(joined, getattr(whole, name))


def test_smaller_batch_is_the_beginning_of_a_larger_one():
    pipeline = ViewPipeline(32)
    assert same(pipeline.draw(16, 5)[:10], pipeline.draw(10, 5)) == FIELDS


def test_draws_are_sliced_and_not_indexed():
    with pytest.raises(TypeError, match="sliced by images"):
        ViewPipeline(32).draw(4, 0)[2]


def test_shapes():
    draws = ViewPipeline(32, low=3, low_size=16).draw(7, 0)
    assert all(getattr(draws, name).shape[:2] == (5, 7) for name in FIELDS)
    assert all(getattr(draws, name).device.type == "cpu" for name in FIELDS)


def test_distributions_follow_the_arguments():
    pipeline = ViewPipeline(
        32, standard=1, low=1, low_size=16, flip=0.3, jitter=0.7, grayscale=0.1, blur=0.9, brightness=1.5
    )
    number = 4000
    draws = pipeline.draw(number, 0)
    for name in ("flip", "jitter", "grayscale", "blur"):
        probability = getattr(pipeline, name)
        share = getattr(draws, name).double().mean().item()
        assert abs(share - probability) < 4 * (probability * (1 - probability) / (2 * number)) ** 0.5
    brightness, contrast, saturation, hue = draws.factors.flatten(0, 1).T.numpy()
    log_ratio = math.log(4 / 3)
    expected = [
        (brightness, 0.0, 2.5),  # 1 - 1.5 is cut at zero, as in torchvision
        (contrast, 0.6, 1.4),
        (saturation, 0.6, 1.4),
        (hue, -0.1, 0.1),
        (draws.sigma.flatten().numpy(), 0.1, 2.0),
        (draws.area[0].flatten().numpy(), 0.2, 1.0),
        (draws.area[1].flatten().numpy(), 0.05, 0.2),
        (draws.aspect.log().flatten().numpy(), -log_ratio, log_ratio),
    ]
    for values, least, most in expected:
        assert kstest((values - least) / (most - least), "uniform").pvalue > 1e-3
    orders = draws.order.flatten(0, 1) @ torch.tensor([64, 16, 4, 1])
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts.numpy()).pvalue > 1e-3
