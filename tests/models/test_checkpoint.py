"""Every way to load gives the same tensors and the same κ, or an error that names what is wrong."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vissl_zoo.hub import export_model

REPOSITORY = Path(__file__).parents[2]
WAYS = ("local-dir", "file", "hf-hub", "registry-hub", "torch.hub")
NAMES = ("vi_simsiam_resnet18", "simsiam_convnext_tiny", "dino_resnet18_cifar", "dino_vit_small_patch16_224")


def load(way, name, export, narrow_args, **kwargs):
    """Load the export of the registered model `name` in one of the ways that a user has."""
    weights = export / "model.safetensors"
    if way == "local-dir":
        return timm.create_model(f"local-dir:{export}", pretrained=True, **kwargs).eval()
    kwargs = {**narrow_args, **kwargs} if way != "hf-hub" else kwargs
    if way == "file":
        overlay = {"file": str(weights)}
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs).eval()
    if way == "torch.hub":
        kwargs["pretrained_cfg_overlay"] = {"file": str(weights)}
        return torch.hub.load(str(REPOSITORY), name, source="local", pretrained=True, **kwargs).eval()
    cache = export.parent / "hub"
    _put_in_hub_cache(cache, export)
    if way == "hf-hub":
        return timm.create_model(
            "hf-hub:someone/model@full", pretrained=True, cache_dir=cache, **kwargs
        ).eval()
    overlay = {"hf_hub_id": "someone/model", "hf_hub_filename": "vissl_zoo.safetensors"}
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, cache_dir=cache, **kwargs
    ).eval()


def _put_in_hub_cache(cache, export):
    """Lay out what huggingface_hub has after downloading revisions main and full of someone/model."""
    for number, revision in enumerate(("main", "full")):
        repository, commit = cache / "models--someone--model", str(number) * 40
        snapshot = repository / "snapshots" / commit
        shutil.copytree(export, snapshot, dirs_exist_ok=True)
        shutil.copy(export / "model.safetensors", snapshot / "vissl_zoo.safetensors")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No network: what is not in the cache is an error."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(params=NAMES)
def exported(request, tmp_path, narrow, narrow_args):
    """A registered model, the arguments that made it small, and its export."""
    model = narrow(request.param)
    return model, request.param, narrow_args(request.param), export_model(model, tmp_path / "export")


@pytest.mark.parametrize("way", WAYS)
def test_the_matrix(exported, way, images):
    model, name, args, export = exported
    size = model.pretrained_cfg["input_size"][-1] if "cifar" in name else 64
    images = images[:, :, :size, :size]
    gray = images[:, :1]
    # Weights adapted to one channel are summed over the three: the same as repeating the channel.
    for x, same in ((images, images), (gray, gray.expand(-1, 3, -1, -1))):
        want, maps = model.represent(same), model.forward_intermediates(same, intermediates_only=True)
        for num_classes in (0, 10):
            for kappa_head in (None, True, False):
                args_here = {"num_classes": num_classes, "in_chans": x.shape[1], "kappa_head": kappa_head}
                loaded = load(way, name, export, args, **args_here)
                embedding = loaded.forward_head(loaded.forward_features(x), pre_logits=True)
                torch.testing.assert_close(embedding, want.embedding)
                assert loaded(x).shape == (3, num_classes or embedding.shape[1])
                assert (loaded.kappa_head is not None) == (
                    kappa_head or (kappa_head is None and not num_classes)
                )
                if loaded.kappa_head is not None:
                    for got, expected in zip(loaded.represent(x), want, strict=True):
                        torch.testing.assert_close(got, expected)
                if x is images:
                    stored = model.state_dict()
                    for key, value in loaded.state_dict().items():
                        assert (key not in stored and num_classes) or torch.equal(value, stored[key])
        extractor = load(way, name, export, args, features_only=True, in_chans=x.shape[1])
        for got, expected in zip(extractor(x), maps, strict=True):
            torch.testing.assert_close(got, expected)


def damage(weights, how):
    """Return weights with one thing wrong, and what the error has to name."""
    weights = dict(weights)
    if how == "no κ head at all":
        return {
            k: v for k, v in weights.items() if not k.startswith("kappa_head.")
        }, r"kappa_head\.mlp\.fc1\.weight"
    if how == "κ key missing":
        del weights["kappa_head.mlp.norm.running_var"]
        return weights, r"lack kappa_head\.mlp\.norm\.running_var"
    if how == "κ key unknown":
        weights["kappa_head.surprise"] = torch.zeros(1)
        return weights, r"unknown kappa_head\.surprise"
    if how == "κ head of another width":
        weights["kappa_head.mlp.fc1.weight"] = torch.zeros(3, 3)
        return weights, r"shape of kappa_head\.mlp\.fc1\.weight"
    if how == "prototype head unknown":
        weights["prototype_head.center"] = torch.zeros(2)
        return weights, r"unknown prototype_head\.center"
    del weights["layer3.0.conv1.weight"]
    return weights, r"layer3\.0\.conv1\.weight"


HARMS = (
    "no κ head at all",
    "κ key missing",
    "κ key unknown",
    "κ head of another width",
    "prototype head unknown",
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", HARMS)
def test_a_wrong_head_raises(way, how, tmp_path, narrow, narrow_args):
    name = "vi_simsiam_resnet18"
    export = export_model(narrow(name), tmp_path / "export")
    weights, culprit = damage(load_file(export / "model.safetensors"), how)
    save_file(weights, export / "model.safetensors")
    for kwargs in ({}, {"num_classes": 10, "kappa_head": True}, {"in_chans": 1}):
        with pytest.raises(RuntimeError, match=culprit):
            load(way, name, export, narrow_args(name), **kwargs)
    for kwargs in ({"num_classes": 10}, {"kappa_head": False}, {"features_only": True}):
        load(way, name, export, narrow_args(name), **kwargs)


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_backbone_weight_raises(way, tmp_path, narrow, narrow_args):
    name = "vi_simsiam_resnet18"
    export = export_model(narrow(name), tmp_path / "export")
    weights, culprit = damage(load_file(export / "model.safetensors"), "backbone")
    save_file(weights, export / "model.safetensors")
    for kwargs in ({}, {"num_classes": 10}, {"kappa_head": False}, {"features_only": True}):
        with pytest.raises(RuntimeError, match=culprit):
            load(way, name, export, narrow_args(name), **kwargs)


def test_dino_weights_without_prototypes_raise(tmp_path, narrow, narrow_args):
    name = "dino_resnet18"
    export = export_model(narrow(name), tmp_path / "export")
    weights = load_file(export / "model.safetensors")
    del weights["prototype_head.weight"]
    save_file(weights, export / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"lack prototype_head\.weight"):
        load("file", name, export, narrow_args(name))


def test_position_embedding_is_resized(tmp_path, narrow, images):
    """timm's own checkpoint filter is at work."""
    export = export_model(narrow("simsiam_vit_small_patch16_224"), tmp_path / "export")
    model = timm.create_model(f"local-dir:{export}", pretrained=True, img_size=96).eval()
    assert model.pos_embed.shape == (1, 1 + 36, 24)
    assert torch.isfinite(model.represent(images.repeat(1, 1, 2, 2)[..., :96, :96]).kappa).all()


def test_classifier_of_another_size_is_replaced(tmp_path, narrow, narrow_args, images):
    name = "vi_simsiam_resnet18"
    model = narrow(name, num_classes=10, kappa_head=True)
    export = export_model(model, tmp_path / "export")
    for way in WAYS:
        same = load(way, name, export, narrow_args(name), num_classes=10)
        assert torch.equal(same(images), model(images))
        other = load(way, name, export, narrow_args(name), num_classes=4)
        assert other(images).shape == (3, 4)
        none = load(way, name, export, narrow_args(name), num_classes=0)
        assert torch.equal(none.represent(images).kappa, model.represent(images).kappa)


@pytest.mark.parametrize("name", ["vi_simsiam_resnet18", "dino"])
def test_pretrained_without_weights_raises(name):
    with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {name}"):
        timm.create_model(name, pretrained=True)


def test_weights_do_not_stay_in_the_configuration(tmp_path, narrow, narrow_args):
    name = "vi_simsiam_vit_small_patch16_224"
    export = export_model(narrow(name), tmp_path / "export")
    for kwargs in ({}, {"features_only": True}):
        loaded = load("file", name, export, narrow_args(name), **kwargs)
        cfgs = [m.pretrained_cfg for m in loaded.modules() if hasattr(m, "pretrained_cfg")]
        assert cfgs
        assert all("state_dict" not in cfg and cfg["architecture"] == name for cfg in cfgs)
        assert loaded.pretrained_cfg["file"].endswith("model.safetensors")


@pytest.mark.parametrize("backbone", ["levit_128s", "efficientvit_m0"])
def test_a_classifier_of_several_layers_is_replaced(backbone, tmp_path):
    model = timm.create_model("simsiam", backbone=backbone)
    export = export_model(model, tmp_path / "export")
    tuned = timm.create_model(f"local-dir:{export}", pretrained=True, num_classes=4)
    for key, value in tuned.state_dict().items():
        assert key.startswith("head") or torch.equal(value, model.state_dict()[key])
