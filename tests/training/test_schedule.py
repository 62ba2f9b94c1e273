"""Which images and what learning rate a step gets: computed another way, and the same on any number of processes."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vissl_zoo.errors import UserError
from vissl_zoo.methods import RECIPES
from vissl_zoo.training.schedule import Plan, index_batches, learning_rate

RECIPE = dataclasses.replace(
    RECIPES["demo"].recipe,
    batch_size=16,
    lr=0.4,
    lr_batch_size=64,
    epochs=4,
    max_steps=None,
    schedule="cosine",
    warmup_epochs=0.0,
)


def planned(images=100, processes=1, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    return recipe, Plan.of(recipe, images, SimpleNamespace(num_processes=processes))


def batches(plan, **where):
    return list(index_batches(plan, **{"seed": 3, "start": 0, "rank": 0, "processes": 1, **where}))


@pytest.mark.parametrize(
    "changes, per_epoch, steps",
    [
        ({}, 6, 24),
        ({"max_steps": 5}, 6, 5),
        ({"gradient_accumulation": 2}, 3, 12),
        ({"batch_size": 100}, 1, 4),
        ({"batch_size": 20, "gradient_accumulation": 2}, 2, 8),
    ],
)
def test_plan(changes, per_epoch, steps):
    _, plan = planned(**changes)
    assert (plan.steps_per_epoch, plan.steps) == (per_epoch, steps)


@pytest.mark.parametrize(
    "changes, processes, message",
    [
        ({"batch_size": 101}, 1, "--batch-size 101 is larger than the data set .100 images"),
        ({"batch_size": 50, "gradient_accumulation": 3}, 1, "--gradient-accumulation 3"),
        ({}, 3, "--batch-size 16 does not divide among 3 processes"),
        ({}, 16, "fewer than 2 images"),
        ({"max_steps": 1, "profile": True}, 1, "--profile needs at least 2 steps"),
    ],
)
def test_plans_that_cannot_be(changes, processes, message):
    with pytest.raises(UserError, match=message):
        planned(processes=processes, **changes)


def test_each_pass_sees_no_image_twice_and_has_its_own_order():
    _, plan = planned()
    passes = np.array(batches(plan)).reshape(4, 6 * 16)
    for each in passes:
        assert len(np.unique(each)) == 96
        assert set(each) <= set(range(100))
    assert len({tuple(each) for each in passes}) == 4
    assert len(np.unique(passes)) == 100  # what one pass leaves over, another sees


def test_order_depends_on_the_seed():
    _, plan = planned()
    assert np.array_equal(batches(plan), batches(plan))
    assert not np.array_equal(batches(plan), batches(plan, seed=4))


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_cut_the_same_batches(processes):
    _, plan = planned(processes=processes)
    shares = [batches(plan, rank=rank, processes=processes) for rank in range(processes)]
    assert np.array_equal(np.concatenate(shares, axis=1), batches(plan))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("start", [1, 6, 7, 11])
def test_resuming_goes_on_where_it_stopped(start, accumulation):
    _, plan = planned(gradient_accumulation=accumulation)
    assert np.array_equal(batches(plan, start=start), batches(plan)[start * accumulation :])


@pytest.mark.parametrize("warmup", [0, 6, 10])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rate_is_that_of_torchs_schedulers(schedule, warmup):
    recipe, plan = planned(schedule=schedule, warmup_epochs=warmup / 6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4 * 16 / 64)
    after = {
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps - warmup),
        "constant": torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1),
    }[schedule]
    expected = []
    for step in range(plan.steps):
        expected.append(0.1 * (step + 1) / warmup if step < warmup else after.get_last_lr()[0])
        if step >= warmup:
            optimizer.step()
            after.step()
    assert [learning_rate(recipe, plan, s) for s in range(plan.steps)] == pytest.approx(expected, rel=1e-9)


def test_learning_rate_is_linear_in_the_images_of_a_step():
    one = learning_rate(*planned(), 0)
    assert one == pytest.approx(0.4 * 16 / 64)
    assert learning_rate(*planned(batch_size=32), 0) == pytest.approx(2 * one)
    assert learning_rate(*planned(gradient_accumulation=3), 0) == pytest.approx(3 * one)
    assert learning_rate(*planned(processes=8), 0) == one


def test_cosine_ends_near_zero_and_spans_max_steps():
    recipe, plan = planned(max_steps=10)
    rates = [learning_rate(recipe, plan, s) for s in range(11)]
    assert rates == sorted(rates, reverse=True)
    assert rates[10] == pytest.approx(0, abs=1e-12)
    assert rates[5] == pytest.approx(rates[0] / 2)
    assert math.isfinite(learning_rate(*planned(max_steps=6, warmup_epochs=1.0), 5))


def test_a_constant_predictor_is_warmed_up_and_then_stays_at_the_peak():
    recipe, plan = planned(warmup_epochs=1.0)
    rates = [learning_rate(recipe, plan, step, constant=True) for step in range(plan.steps)]
    assert rates[: plan.steps_per_epoch] == [
        learning_rate(recipe, plan, s) for s in range(plan.steps_per_epoch)
    ]
    assert set(rates[plan.steps_per_epoch :]) == {0.4 * 16 / 64}
