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
WAYS = ("local-dir", "file", "hf-hub", "registry-hub", "torch.hub", "shipped")
NAMES = ("vi_simsiam_resnet18", "simsiam_convnext_tiny", "dino_resnet18_cifar", "dino_vit_small_patch16_224")


def load(way, name, export, narrow_args, ship=None, **kwargs):
    """Load the export of the registered model `name` in one of the ways that a user has."""
    weights = export / "model.safetensors"
    if way == "local-dir":
        return timm.create_model(f"local-dir:{export}", pretrained=True, **kwargs).eval()
    if way == "shipped":  # the tag brings the arguments
        return timm.create_model(ship(name, export, narrow_args), pretrained=True, **kwargs).eval()
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
def test_the_matrix(exported, way, images, ship):
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
                loaded = load(way, name, export, args, ship, **args_here)
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
        extractor = load(way, name, export, args, ship, features_only=True, in_chans=x.shape[1])
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
def test_a_wrong_head_raises(way, how, tmp_path, narrow, narrow_args, ship):
    name = "vi_simsiam_resnet18"
    export = export_model(narrow(name), tmp_path / "export")
    weights, culprit = damage(load_file(export / "model.safetensors"), how)
    save_file(weights, export / "model.safetensors")
    for kwargs in ({}, {"num_classes": 10, "kappa_head": True}, {"in_chans": 1}):
        with pytest.raises(RuntimeError, match=culprit):
            load(way, name, export, narrow_args(name), ship, **kwargs)
    for kwargs in ({"num_classes": 10}, {"kappa_head": False}, {"features_only": True}):
        load(way, name, export, narrow_args(name), ship, **kwargs)


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_backbone_weight_raises(way, tmp_path, narrow, narrow_args, ship):
    name = "vi_simsiam_resnet18"
    export = export_model(narrow(name), tmp_path / "export")
    weights, culprit = damage(load_file(export / "model.safetensors"), "backbone")
    save_file(weights, export / "model.safetensors")
    for kwargs in ({}, {"num_classes": 10}, {"kappa_head": False}, {"features_only": True}):
        with pytest.raises(RuntimeError, match=culprit) as raised:
            load(way, name, export, narrow_args(name), ship, **kwargs)
        assert "\n" not in str(raised.value)


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


def test_classifier_of_another_size_is_replaced(tmp_path, narrow, narrow_args, images, ship):
    name = "vi_simsiam_resnet18"
    model = narrow(name, num_classes=10, kappa_head=True)
    export = export_model(model, tmp_path / "export")
    for way in WAYS:
        same = load(way, name, export, narrow_args(name), ship, num_classes=10)
        assert torch.equal(same(images), model(images))
        other = load(way, name, export, narrow_args(name), ship, num_classes=4)
        assert other(images).shape == (3, 4)
        none = load(way, name, export, narrow_args(name), ship, num_classes=0)
        assert torch.equal(none.represent(images).kappa, model.represent(images).kappa)


@pytest.mark.parametrize("kwargs", [{}, {"num_classes": 7}, {"features_only": True}, {"in_chans": 1}])
@pytest.mark.parametrize("own, other", [("resnet18", "resnet50"), ("vit_small_patch16_224", "resnet18")])
def test_weights_of_another_architecture_are_one_line(own, other, kwargs, tmp_path, narrow, narrow_args):
    name = f"vi_simsiam_{other}"
    export = export_model(narrow(name), tmp_path / "export")
    with pytest.raises(RuntimeError, match=r"layer1\.0\.|blocks\.0\.") as raised:
        load("file", f"simsiam_{own}", export, narrow_args(f"simsiam_{own}"), **kwargs)
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) < 700
    assert f"simsiam_{own}" in said


def test_weights_of_a_deeper_network_are_refused(tmp_path, narrow, narrow_args):
    """With a new classifier timm would take the blocks that it knows, and drop the others."""
    deep = narrow("vi_simsiam_resnet18", layers=(1, 1, 2, 1))
    export = export_model(deep, tmp_path / "export")
    with pytest.raises(RuntimeError, match=r"more than the backbone of simsiam_resnet18: layer3\.1\."):
        load("file", "simsiam_resnet18", export, narrow_args("simsiam_resnet18"), num_classes=10)


@pytest.mark.parametrize("given", [{"latent_dim": 17}, {"kappa_map": "exp"}, {"kappa_hidden": 5}])
def test_kappa_is_not_read_with_other_arguments(given, tmp_path, narrow, narrow_args):
    """The file says what it was made with; the backbone alone may be had with any."""
    name = "vi_simsiam_resnet18"
    export = export_model(narrow(name, kappa_hidden=6, kappa_map="softplus"), tmp_path / "export")
    args = {**narrow_args(name), **given}
    with pytest.raises(RuntimeError, match=f"{next(iter(given))}=.*leave .* out"):
        load("file", name, export, args)
    assert load("file", name, export, args, kappa_head=False).kappa_head is None
    del args["latent_dim"]
    loaded = load("file", name, export, {k: v for k, v in args.items() if k not in given})
    assert (loaded.kappa_head.latent_dim, loaded.kappa_head.kappa_map) == (16, "softplus")
    assert loaded.kappa_head.mlp.fc1.out_features == 6


def test_half_precision_becomes_single(tmp_path, narrow, narrow_args, images):
    """Also where channels are summed: rounding happens once, in the file."""
    name = "vi_simsiam_resnet18"
    model = narrow(name)
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(half, tmp_path / "half.safetensors")
    overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "half.safetensors")}, **narrow_args(name)}
    loaded = timm.create_model(name, pretrained=True, in_chans=1, **overlay).eval()
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(loaded.conv1.weight, half["conv1.weight"].float().sum(1, keepdim=True))


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_a_broken_file_is_named(content, tmp_path, narrow_args):
    (tmp_path / "w.safetensors").write_bytes(content)
    overlay = {"file": str(tmp_path / "w.safetensors")}
    with pytest.raises(RuntimeError, match=r"w\.safetensors cannot be read as safetensors: .+") as raised:
        timm.create_model("vi_simsiam_resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
    assert "\n" not in str(raised.value)


def test_offline_and_not_in_the_cache_is_one_line(tmp_path):
    overlay = {"hf_hub_id": "someone/else"}
    with pytest.raises(RuntimeError, match=r"model\.safetensors of someone/else cannot be had: .+") as raised:
        timm.create_model(
            "vi_simsiam_resnet18", pretrained=True, pretrained_cfg_overlay=overlay, cache_dir=tmp_path
        )
    assert "\n" not in str(raised.value)


def test_only_safetensors_come_from_the_hub(tmp_path):
    overlay = {"hf_hub_id": "someone/model", "hf_hub_filename": "pytorch_model.bin"}
    with pytest.raises(RuntimeError, match=r"pytorch_model\.bin.*no safetensors"):
        timm.create_model("simsiam_resnet18", pretrained=True, pretrained_cfg_overlay=overlay)


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


def test_a_model_without_weights_has_the_methods_heads_and_not_those_of_the_shipped_fit():
    name = "vi_simsiam_resnet18"
    assert timm.create_model(name, pretrained=True).kappa_head.kappa_map == "exp"
    assert timm.create_model(name).kappa_head.kappa_map == "softplus"
