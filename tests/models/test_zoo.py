"""The registered names: all there, all timm citizens, and nothing of timm's touched."""

import subprocess
import sys

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.methods import METHODS
from vissl_zoo.models import entrypoints, pool_size
from vissl_zoo.weights import shipped

BACKBONES = ("resnet18", "resnet18_cifar", "resnet50", "convnext_tiny", "vit_small_patch16_224")
WIDTHS = {"resnet50": 2048, "convnext_tiny": 768, "vit_small_patch16_224": 384}
NAMES = [f"{method}_{backbone}" for method in METHODS for backbone in BACKBONES]


def test_names():
    assert {"vi_simsiam", "simsiam", "dino"} <= set(METHODS)
    assert set(entrypoints()) == {*NAMES, *METHODS, "kappa"}
    assert set(entrypoints()) <= set(timm.list_models())
    assert all(f.__doc__ for f in entrypoints().values())


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_every_name_builds(method, backbone, meta):
    name = f"{method}_{backbone}"
    model = timm.create_model(name)
    cfg = model.pretrained_cfg
    size = timm.get_pretrained_cfg(name).input_size[-1]  # what its shipped weights want, if it has some
    if not any(row.startswith(f"{name}.") for row in shipped()):
        assert size == (32 if backbone == "resnet18_cifar" else 224)
    assert (cfg["architecture"], tuple(cfg["input_size"]), cfg["num_classes"]) == (name, (3, size, size), 0)
    assert cfg["mean"] == timm.data.IMAGENET_DEFAULT_MEAN
    assert cfg["std"] == timm.data.IMAGENET_DEFAULT_STD
    assert isinstance(model, timm.models.ResNet | timm.models.ConvNeXt | timm.models.VisionTransformer)
    embedding, kappa, uncertainty = model.represent(torch.empty(2, 3, size, size))
    assert embedding.shape == (2, WIDTHS.get(backbone, 512))
    assert kappa.shape == uncertainty.shape == (2,)
    assert kappa.dtype == uncertainty.dtype == torch.float32
    assert (model.prototype_head is not None) == (method == "dino")


@pytest.mark.parametrize("backbone", [b for b in BACKBONES if b != "resnet18_cifar"])
def test_parameters_are_those_of_timm(backbone, meta):
    """Plain timm keys and shapes, no prefix, and the heads beside them."""
    ours = timm.create_model(f"vi_simsiam_{backbone}").state_dict()
    theirs = timm.create_model(backbone, num_classes=0).state_dict()
    extra = {k for k in ours if k.startswith("kappa_head.")}
    assert {k: v.shape for k, v in ours.items() if k not in extra} == {k: v.shape for k, v in theirs.items()}
    assert extra


def test_random_start_and_forward_are_those_of_timm(images):
    torch.manual_seed(0)
    ours = timm.create_model("simsiam", backbone="test_resnet", num_classes=5).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=5).eval()
    assert torch.equal(ours(images), theirs(images))


def test_import_changes_nothing_of_timm():
    code = """
import sys, timm
from timm.models import _registry as r
names = ("_model_entrypoints", "_model_pretrained_cfgs", "_model_default_cfgs", "_model_has_pretrained")
before = {n: set(getattr(r, n)) for n in names}
cfgs = {n: timm.get_pretrained_cfg(n) for n in timm.list_models(include_tags=True)}
modules = {m: set(timm.list_models(module=m)) for m in timm.list_modules()}
import vissl_zoo, vissl_zoo.models
ours = set(vissl_zoo.models.entrypoints())
assert all({m for m in getattr(r, n) if m.split(".")[0] not in ours} == before[n] for n in names)
assert all(timm.get_pretrained_cfg(n) == cfg for n, cfg in cfgs.items())
assert {m: set(timm.list_models(module=m)) for m in modules} == modules
assert set(timm.list_modules()) - set(modules) == {"zoo"}
heavy = {"datasets", "accelerate", "matplotlib", "sklearn", "pandas", "tyro"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_helped():
    with pytest.raises(ValueError, match=r"'vi_simsam_resnet18'.*vi_simsiam_resnet18"):
        vissl_zoo.create_model("vi_simsam_resnet18")
    with pytest.raises(ValueError, match=r"backbone 'resnt18'.*resnet18"):
        vissl_zoo.create_model("dino", backbone="resnt18")
    with pytest.raises(ValueError, match="unknown backbone 'dino_resnet18'"):
        vissl_zoo.create_model("dino", backbone="dino_resnet18")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("argument", ["not_an_argument", "prototype_args", "generic", "variant"])
def test_unknown_arguments_raise(name, argument, meta):
    for model in (name, f"{name}_resnet18_cifar"):
        with pytest.raises(TypeError):
            timm.create_model(model, **{argument: 1})


def test_arguments_of_dino_are_unknown_elsewhere(meta):
    with pytest.raises(TypeError):
        vissl_zoo.create_model("vi_simsiam_resnet18", prototypes=8)


def test_latent_dimension_of_dino_is_its_bottleneck(meta):
    for argument in ("latent_dim", "bottleneck_dim"):
        model = vissl_zoo.create_model("dino_resnet18", **{argument: 24})
        assert model.kappa_head.latent_dim == model.prototype_head.bottleneck_dim == 24
    with pytest.raises(ValueError, match="latent_dim=3 and bottleneck_dim=4"):
        vissl_zoo.create_model("dino_resnet18", latent_dim=3, bottleneck_dim=4)


@pytest.mark.parametrize(
    "backbone, size, expected",
    [
        ("test_resnet", 64, (2, 2)),
        ("resnet18_cifar", 32, (4, 4)),
        ("test_convnext", 96, (3, 3)),
        ("test_vit", 160, None),
    ],
)
def test_pool_size_is_that_of_the_last_feature_map(backbone, size, expected):
    model = vissl_zoo.create_model("simsiam", backbone=backbone).train()
    assert pool_size(model, size) == expected
    assert model.training
