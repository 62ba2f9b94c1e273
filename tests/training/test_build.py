"""From a recipe to its network: the right one, or a word on why not."""

import dataclasses

import pytest
import torch

from vissl_zoo.errors import UserError
from vissl_zoo.recipes import RECIPES
from vissl_zoo.training import build_model

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
