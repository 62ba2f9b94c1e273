"""Weights that a wrapper was saved around: its prefix goes, and a model's own names stay."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from vissl_zoo.models.read_weights import unwrapped


def prefixed(weights, prefix, heads=True):
    return {k if k.startswith("kappa_head.") and not heads else prefix + k: v for k, v in weights.items()}


@pytest.mark.parametrize(
    "prefix, heads",
    [
        ("module.", True),
        ("_orig_mod.", True),
        ("module._orig_mod.", True),
        ("_orig_mod.module.", True),
        ("model.", True),
        ("backbone.", True),
        ("backbone.", False),
        ("module.model.", False),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_wrappers_prefix_goes(prefix, heads, suffix, tmp_path, narrow, narrow_args, images):
    name = "vi_simsiam_resnet18"
    model = narrow(name)
    weights, file = prefixed(model.state_dict(), prefix, heads), tmp_path / f"weights{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    overlay = {"pretrained_cfg_overlay": {"file": str(file)}, **narrow_args(name)}
    loaded = timm.create_model(name, pretrained=True, **overlay).eval()
    for got, expected in zip(loaded.represent(images), model.represent(images), strict=True):
        assert torch.equal(got, expected)


def test_names_that_only_a_part_of_the_trunk_has_stay():
    assert unwrapped({"model.a": 1, "b": 2}).keys() == {"model.a", "b"}
    assert unwrapped({"backbone.a": 1, "model.b": 2}).keys() == {"backbone.a", "model.b"}
    assert unwrapped({"kappa_head.a": 1}).keys() == {"kappa_head.a"}
    assert unwrapped({"patch_embed.backbone.a": 1, "b.module.c": 2}).keys() == {
        "patch_embed.backbone.a",
        "b.module.c",
    }
    assert unwrapped({"model.a": 1, "model.kappa_head.b": 2}).keys() == {"a", "kappa_head.b"}
