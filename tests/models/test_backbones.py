"""Backbones: the CIFAR stem, and any timm model by name."""

import inspect

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.models.backbones import backbone_cfg


def test_cifar_stem(images):
    model = vissl_zoo.create_model("simsiam_resnet18_cifar", channels=(8, 8, 16, 16)).eval()
    assert isinstance(model.conv1, torch.nn.Conv2d)
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert model.forward_features(images[:, :, :32, :32]).shape[-2:] == (4, 4)


def test_cifar_differs_from_resnet18_in_one_shape(meta):
    ours = vissl_zoo.create_model("simsiam_resnet18_cifar", kappa_head=False).state_dict()
    theirs = timm.create_model("resnet18", num_classes=0).state_dict()
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if ours[k].shape != theirs[k].shape] == ["conv1.weight"]


def test_cifar_reductions_are_true(images):
    net = vissl_zoo.create_model("vi_simsiam_resnet18_cifar", features_only=True).eval()
    maps = net(images[:, :, :32, :32])
    assert net.feature_info.reduction() == [32 // m.shape[-1] for m in maps] == [1, 1, 2, 4, 8]
    assert net.feature_info.channels() == [m.shape[1] for m in maps]


def test_cifar_takes_timm_arguments(meta):
    model = vissl_zoo.create_model("dino_resnet18_cifar", in_chans=1, output_stride=8)
    assert model.conv1.weight.shape == (64, 1, 3, 3)
    assert [i["reduction"] for i in model.feature_info] == [1, 1, 2, 2, 2]


@pytest.mark.skipif(
    "dtype" not in inspect.signature(timm.models.ResNet).parameters, reason="timm has no dtype"
)
def test_device_and_dtype_of_the_factory():
    model = vissl_zoo.create_model("dino_resnet18_cifar", dtype=torch.float64, device="meta")
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in tensors} == {torch.float64}
    assert {t.device.type for t in tensors} == {"meta"}


@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "resnet18_cifar"],
)
def test_any_backbone(backbone, images):
    size = {"dynamic_img_size": True} if backbone == "test_vit" else {}
    model = vissl_zoo.create_model("vi_simsiam", backbone=backbone, latent_dim=8, **size)
    model.eval()
    r = model.represent(images)
    assert torch.equal(r.embedding, model(images))
    assert r.embedding.shape[1] == model.kappa_head.in_features
    assert model.pretrained_cfg["architecture"] == "vi_simsiam"


def test_a_tag_selects_the_input_configuration(meta):
    assert backbone_cfg("resnet50.a3_in1k")["input_size"] == (3, 160, 160)
    model = vissl_zoo.create_model("simsiam", backbone="resnet50.a3_in1k")
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 160, 160)
    assert "url" not in model.pretrained_cfg
    assert "hf_hub_id" not in model.pretrained_cfg


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "resnet18"])
def test_features_are_those_of_timm(backbone, images):
    args = {"features_only": True, "out_indices": (0, 1)}
    x = torch.nn.functional.interpolate(images, 160)
    torch.manual_seed(0)
    ours = timm.create_model("dino", backbone=backbone, **args).eval()
    torch.manual_seed(0)
    theirs = timm.create_model(backbone, **args, num_classes=0).eval()
    assert type(ours) is type(theirs)
    assert ours.feature_info.info == theirs.feature_info.info
    for a, b in zip(ours(x), theirs(x), strict=True):
        assert torch.equal(a, b)
    assert not any("kappa" in n or "prototype" in n for n in ours.state_dict())
