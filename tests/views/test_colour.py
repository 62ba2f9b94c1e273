"""Colour operations against torchvision's functional ones, with the same factors."""

import itertools

import pytest
import torch
import torchvision.transforms.v2.functional as F

from vissl_zoo.views.colour import Jitter, jitter_colours, jitter_numbers, luma, shift_hue
from vissl_zoo.views.draws import OPERATIONS

ADJUST = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
IDENTITY = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)


def color_jitter(batch, factors, order):
    """`jitter_colours` for images (B, 3, H, W) in any order; it changes nothing in place."""
    kind, *numbers = jitter_numbers(factors, order, torch.ones(len(batch), dtype=torch.bool))
    by_kind = kind.argsort(stable=True)
    changed = batch[by_kind]
    jitter_colours(changed, Jitter(kind[by_kind], *(n.to(batch.dtype)[by_kind] for n in numbers)))
    return changed[by_kind.argsort()]


def turned(batch, turn):
    batch = batch.clone()
    shift_hue(batch, turn)
    return batch


def images(number, size=12, seed=0):
    """Random pixels and the special cases of hue and clamping: black, white, gray, pure and mixed colours."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.rand(number, 3, size, size, generator=generator)
    corners = torch.tensor(list(itertools.product((0.0, 0.5, 1.0), repeat=3))).T  # (3, 27)
    batch[:, :, :3, :9] = corners.reshape(3, 3, 9)
    return batch


@pytest.mark.parametrize("operation", range(4), ids=OPERATIONS)
def test_one_operation_equals_torchvision(operation):
    values = [-0.5, -0.31, -0.1, 0.0, 0.07, 0.25, 0.5] if operation == 3 else [0.0, 0.3, 0.6, 1.0, 1.4, 2.5]
    batch = images(len(values))
    factors = IDENTITY.repeat(len(values), 1)
    factors[:, operation] = torch.tensor(values, dtype=torch.float64)
    ours = color_jitter(batch.clone(), factors, torch.arange(4).expand(len(values), 4))
    for image, value, view in zip(batch, values, ours, strict=True):
        assert (view - ADJUST[operation](image, value)).abs().max() < 2e-6


def test_every_order_equals_torchvision():
    orders = torch.tensor(list(itertools.permutations(range(4))))
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(24, 4, generator=generator, dtype=torch.float64) * 1.2 + 0.4
    factors[:, 3] = (factors[:, 3] - 1) * 0.8
    batch = images(24)
    ours = color_jitter(batch.clone(), factors, orders)
    for image, factor, order, view in zip(batch, factors.tolist(), orders.tolist(), ours, strict=True):
        for operation in order:
            image = ADJUST[operation](image, factor[operation])
        assert (view - image).abs().max() < 5e-6


def test_orders_matter():
    """The reference above would also pass if the orders were ignored by both: here two orders must differ."""
    batch = images(2, seed=1)
    batch[1] = batch[0]
    factors = torch.tensor([[1.4, 0.6, 1.4, 0.1]] * 2, dtype=torch.float64)
    ours = color_jitter(batch.clone(), factors, torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]))
    assert (ours[0] - ours[1]).abs().max() > 0.05


def test_identity_factors_leave_images_bit_for_bit():
    batch = images(5)
    ours = color_jitter(batch.clone(), IDENTITY.repeat(5, 1), torch.arange(4).repeat(5, 1))
    assert torch.equal(ours, batch)


def test_hue_turns_add_up_and_come_round():
    """Three thirds of a turn are no turn; red, green and blue follow one another."""
    batch = images(4, seed=2).double()
    third = torch.full((4,), 1 / 3, dtype=torch.float64)
    once = turned(batch, third)
    assert torch.allclose(once, batch.roll(1, 1), atol=1e-12)
    assert torch.allclose(turned(turned(once, third), third), batch, atol=1e-12)


def test_hue_is_finite_for_almost_gray_pixels():
    base = torch.linspace(0, 1, 1000).view(1, 1, 10, 100).expand(1, 3, 10, 100).clone()
    for channel in range(3):
        near = base.clone()
        near[:, channel] = torch.nextafter(near[:, channel], torch.tensor(2.0)).clamp(0, 1)
        assert (turned(near, torch.tensor([0.1])) - near).abs().max() < 1e-6
    assert torch.equal(turned(base, torch.tensor([0.1])), base)


def test_luma_equals_torchvision():
    batch = images(3)
    assert torch.allclose(luma(batch), F.rgb_to_grayscale(batch)[:, 0], atol=1e-7)
