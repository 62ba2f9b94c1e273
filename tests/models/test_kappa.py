"""`kappa`: any timm backbone with a κ head beside it, as add_kappa_head makes it and an export brings it back."""

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.hub import export_model


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext.r160_in1k"])
def test_the_backbone_is_timms_with_its_own_statistics(backbone):
    torch.manual_seed(0)
    ours = timm.create_model("kappa", backbone=backbone, latent_dim=9, kappa_map="exp", kappa_hidden=7).eval()
    torch.manual_seed(0)
    theirs = timm.create_model(backbone, num_classes=0).eval()
    x = torch.randn(2, *theirs.pretrained_cfg["input_size"])
    assert torch.equal(ours(x), theirs(x))
    for key in ("mean", "std", "crop_pct", "interpolation"):
        assert ours.pretrained_cfg[key] == theirs.pretrained_cfg[key]
    head = ours.kappa_head
    assert (head.latent_dim, head.kappa_map, head.mlp.fc1.out_features) == (9, "exp", 7)
    assert ours.pretrained_cfg["architecture"] == "kappa"


def test_add_kappa_head_is_exported_under_it(tmp_path):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=0).eval()
    vissl_zoo.add_kappa_head(model, latent_dim=9, kappa_map="exp", kappa_hidden=7)
    export = export_model(model, tmp_path / "export")
    loaded = timm.create_model(f"local-dir:{export}", pretrained=True).eval()
    assert loaded.pretrained_cfg["architecture"] == "kappa"
    assert loaded._model_args["backbone"] == "test_resnet.r160_in1k"
    assert loaded._model_args["kappa_hidden"] == 7
    x = torch.randn(2, 3, 64, 64)
    for a, b in zip(model.represent(x), loaded.represent(x), strict=True):
        assert torch.equal(a, b)
    again = timm.create_model(f"local-dir:{export_model(loaded, tmp_path / 'again')}", pretrained=True).eval()
    assert torch.equal(again.represent(x).kappa, model.represent(x).kappa)


def test_it_is_no_method():
    assert "kappa" not in vissl_zoo.models.method_names()
    assert "kappa" in vissl_zoo.models.entrypoints()


@pytest.mark.parametrize(
    "architecture, args, expected",
    [
        ("kappa", {"backbone": "resnet50.a1_in1k"}, "resnet50.a1_in1k"),
        ("dino", {}, "resnet18"),
        ("simsiam_resnet18_cifar", {}, "resnet18_cifar"),
        ("vi_simsiam_vit_small_patch16_224", {}, "vit_small_patch16_224"),
    ],
)
def test_backbone_of(architecture, args, expected):
    assert vissl_zoo.models.backbone_of(architecture, args) == expected


def test_backbone_of_others():
    with pytest.raises(ValueError, match="resnet18 is no architecture of the zoo"):
        vissl_zoo.models.backbone_of("resnet18", {})
