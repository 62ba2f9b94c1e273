"""Fused SGD is the SGD that it stands for, also after a checkpoint."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from vissl_zoo.methods import create_method
from vissl_zoo.recipes import RECIPES
from vissl_zoo.training import build_model, build_optimizer
from vissl_zoo.training.checkpoint import load_checkpoint, save_checkpoint
from vissl_zoo.training.optimizer import can_fuse

DEMO = RECIPES["demo"].recipe


@pytest.fixture
def method():
    return create_method("vi_simsiam", build_model(DEMO), **DEMO.method.method_args())


@pytest.mark.parametrize("constant", [True, False])
def test_groups(method, constant):
    recipe = dataclasses.replace(DEMO, constant_predictor_lr=constant)
    optimizer = build_optimizer(recipe, method, "no")
    groups = optimizer.param_groups
    assert [g["constant_lr"] for g in groups] == ([False, True] if constant else [False])
    assert sum(len(g["params"]) for g in groups) == len(list(method.parameters()))
    assert {(g["momentum"], g["weight_decay"]) for g in groups} == {(DEMO.momentum, DEMO.weight_decay)}
    if constant:
        assert {id(p) for p in groups[1]["params"]} == {id(p) for p in method.predictor.parameters()}


def test_where_it_is_fused(method):
    assert can_fuse(torch.device("cpu"), torch.float32)
    assert can_fuse(torch.device("cpu"), torch.float64)
    assert not can_fuse(torch.device("meta"), torch.float32)
    assert build_optimizer(DEMO, method, "bf16").defaults["fused"] is True
    assert not build_optimizer(DEMO, method, "fp16").defaults["fused"]


def network(dtype):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Flatten())
    return layers.to(dtype, memory_format=torch.channels_last)


def sgd(model, fused):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, fused=fused)


def step(model, optimizer, number):
    dtype = next(model.parameters()).dtype
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(number)).to(dtype)
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_and_resumed_equals_plain(tmp_path, dtype):
    """The weights are channels-last and a file is not: the momentum must come back in the weights' order."""
    plain, fused = network(dtype), network(dtype)
    assert fused[0].weight.stride() != fused[0].weight.contiguous().stride()
    plain_sgd, fused_sgd = sgd(plain, None), sgd(fused, True)
    plain_sgd.param_groups[0]["foreach"] = False
    for number in range(3):
        step(plain, plain_sgd, number)
        step(fused, fused_sgd, number)
    checkpoint = save_checkpoint(tmp_path, 3, fused, fused_sgd, {"seconds": 0.0})
    resumed = copy.deepcopy(network(dtype))
    resumed_sgd = sgd(resumed, True)
    load_checkpoint(checkpoint, resumed, resumed_sgd)
    for number in range(3, 6):
        step(plain, plain_sgd, number)
        step(fused, fused_sgd, number)
        step(resumed, resumed_sgd, number)
    for a, b, c in zip(plain.parameters(), fused.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(b, c)
