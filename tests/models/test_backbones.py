"""Backbones: the CIFAR stem, and any timm model by name."""

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.models._backbones import backbone_cfg


def test_cifar_stem(images):
    model = vissl_zoo.create_model("simsiam_resnet18_cifar", channels=(8, 8, 16, 16)).eval()
    assert isinstance(model.conv1, torch.nn.Conv2d)
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert model.forward_features(images[:, :, :32, :32]).shape[-2:] == (4, 4)
    names = {n for n, _ in model.named_parameters()} | {n for n, _ in model.named_buffers()}
    theirs = timm.create_model("resnet18", num_classes=0, device="meta").state_dict()
    assert {n for n in names if not n.startswith("kappa_head")} == set(theirs)


def test_cifar_reductions_are_true(images):
    net = vissl_zoo.create_model("vi_simsiam_resnet18_cifar", features_only=True).eval()
    maps = net(images[:, :, :32, :32])
    assert net.feature_info.reduction() == [32 // m.shape[-1] for m in maps] == [1, 1, 2, 4, 8]
    assert net.feature_info.channels() == [m.shape[1] for m in maps]


def test_cifar_takes_timm_arguments():
    model = vissl_zoo.create_model(
        "dino_resnet18_cifar", in_chans=1, output_stride=8, dtype=torch.float64, device="meta"
    )
    assert model.conv1.weight.shape == (64, 1, 3, 3)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert [i["reduction"] for i in model.feature_info] == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "resnet18_cifar"],
)
def test_any_backbone(backbone, images):
    model = (
        vissl_zoo.create_model("vi_simsiam", backbone=backbone, latent_dim=8, dynamic_img_size=True)
        if (backbone == "test_vit")
        else vissl_zoo.create_model("vi_simsiam", backbone=backbone, latent_dim=8)
    )
    model.eval()
    r = model.represent(images)
    assert torch.equal(r.embedding, model(images))
    assert r.embedding.shape[1] == model.kappa_head.in_features
    assert model.pretrained_cfg["architecture"] == "vi_simsiam"


def test_a_tag_selects_the_input_configuration():
    assert backbone_cfg("resnet50.a3_in1k")["input_size"] == (3, 160, 160)
    model = vissl_zoo.create_model("simsiam", backbone="resnet50.a3_in1k", device="meta")
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
