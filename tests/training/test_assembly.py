"""From a recipe to its network, or a word on why not; fused SGD is the SGD that it stands for; --compile on."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from vissl_zoo.errors import UserError
from vissl_zoo.methods import RECIPES, create_method
from vissl_zoo.training import build_method, build_model, build_optimizer
from vissl_zoo.training.assembly import restore_backbone
from vissl_zoo.training.checkpoint import load_checkpoint, save_checkpoint

DEMO = RECIPES["demo"].recipe


def recipe(name="demo", low=None, **changes):
    """A recipe with other fields; `low` is the side of low-resolution views."""
    views = dataclasses.replace(DEMO.views, low=int(low is not None), low_size=low)
    return dataclasses.replace(RECIPES[name].recipe, views=views, **changes)


def test_the_demos_network():
    model = build_model(DEMO)
    assert model.training
    assert model.pretrained_cfg["architecture"] == "vi_simsiam"
    assert model.num_classes == 0
    assert model.kappa_head.latent_dim == DEMO.method.latent_dim
    assert model.kappa_head.kappa_map == DEMO.method.kappa_map


def test_options_reach_the_model():
    method = dataclasses.replace(DEMO.method, latent_dim=12, kappa_map="exp")
    head = build_model(recipe(method=method)).kappa_head
    assert (head.latent_dim, head.kappa_map) == (12, "exp")
    dino = RECIPES["dino_resnet18_cifar10"].recipe
    method = dataclasses.replace(dino.method, prototypes=10, bottleneck_dim=6, teacher_temperature=0.09)
    model = build_model(dataclasses.replace(dino, model="dino", backbone="test_resnet", method=method))
    head = model.prototype_head
    assert (head.prototypes, head.bottleneck_dim, head.teacher_temperature) == (10, 6, 0.09)
    assert model.kappa_head.latent_dim == 6


def test_trying_the_sizes_leaves_no_trace():
    """The blank images are seen in evaluation mode: no running statistic moves."""
    model = build_model(recipe(low=16))
    fresh = {
        k: v for k, v in model.state_dict().items() if k.endswith(("running_mean", "num_batches_tracked"))
    }
    assert fresh
    assert all((v == 0).all() for v in fresh.values())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("low", [None, 16, 48])
def test_position_embeddings_fit_every_size(low):
    model = build_model(recipe(backbone="test_vit", image_size=64, low=low))
    for size in (64, *([low] if low else [])):
        assert model(torch.randn(2, 3, size, size)).shape == (2, model.num_features)
    assert model.pos_embed.shape[1] == 1 + 4 * 4  # a grid of its own, not that of 160 pixels resampled


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "nope"}, "--model nope is unknown to timm"),
        ({"model": "resnet18"}, "--model resnet18 is not a model of vi_simsiam"),
        ({"model": "dino_resnet18"}, "--model dino_resnet18 is not a model of vi_simsiam"),
        ({"model": "vi_simsiam_resnet81"}, "vi_simsiam_resnet18"),
        ({"backbone": "tset_resnet"}, "test_resnet"),
        ({"backbone": "test_vit", "image_size": 40}, "--image-size 40"),
        ({"backbone": "test_vit", "image_size": 64, "low": 20}, "--views.low-size 20"),
        ({"image_size": 10**6}, "--image-size 1000000"),
    ],
)
def test_networks_that_cannot_be(changes, message):
    with pytest.raises(UserError) as error:
        build_model(recipe(**changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def method():
    return create_method("vi_simsiam", build_model(DEMO), DEMO.method)


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
    assert build_optimizer(DEMO, method, "bf16").defaults["fused"] is True
    assert not build_optimizer(DEMO, method, "fp16").defaults["fused"]
    assert not build_optimizer(DEMO, method.to("meta"), "no").defaults["fused"]


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


class TestCompile:
    @pytest.fixture
    def compiled(self, monkeypatch):
        """A compiler that keeps the call as it is, and counts: the real one takes a minute."""
        compiled = []
        monkeypatch.setattr(torch, "compile", lambda call: compiled.append(call) or call)
        return compiled

    def build(self, **changes):
        torch.manual_seed(0)
        small = recipe(image_size=16, **changes)
        return build_method(small, build_model(small), torch.device("cpu"))

    def test_only_when_asked_for(self, compiled):
        assert DEMO.compile == "off"
        self.build()
        assert compiled == []

    def test_names_stay_and_it_can_be_undone(self, compiled):
        plain, method = self.build(), self.build(compile="on")
        assert len(compiled) == 1
        assert list(method.state_dict()) == list(plain.state_dict())
        views = [torch.randn(2, 3, 16, 16) for _ in range(2)]
        assert torch.equal(method(views).loss, plain(views).loss)
        assert "forward" in vars(method.model)
        restore_backbone(method.model)
        assert "forward" not in vars(method.model)
        restore_backbone(method.model)  # of what is not compiled: nothing happens

    def test_a_compiler_that_fails_is_one_line(self, monkeypatch):
        def fail(call):
            def raising(x):
                raise RuntimeError("backend='inductor' raised:\n\nRuntimeError: no C++ compiler\nmore")

            return raising

        monkeypatch.setattr(torch, "compile", fail)
        with pytest.raises(UserError, match=r"^--compile on: RuntimeError: no C\+\+ compiler$"):
            self.build(compile="on")([torch.randn(2, 3, 16, 16)] * 2)
