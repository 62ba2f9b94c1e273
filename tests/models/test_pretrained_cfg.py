"""Weights that the package ships: names, tags, what a tag fixes, and a file that is not what it was."""

import huggingface_hub
import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo import weights
from vissl_zoo.hub import export_model

NAME = "vi_simsiam_resnet18"
IMAGES = {"input_size": [3, 64, 64], "crop_pct": 1.0, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
recent_timm = pytest.mark.skipif(
    not hasattr(timm.models, "get_model_args"), reason="older timm keeps the tags of an earlier registration"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def two(tmp_path, narrow, narrow_args, ship):
    """Two models shipped under one name, with other heads."""
    models = {}
    for tag, head in (("first", {"latent_dim": 16}), ("second", {"latent_dim": 9, "kappa_map": "exp"})):
        models[tag] = narrow(NAME, **head)
        export = export_model(models[tag], tmp_path / tag)
        ship(
            NAME, export, {**narrow_args(NAME), **head}, tag, pretrained_cfg=IMAGES, description=f"the {tag}"
        )
    return models


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def test_the_first_tag_is_the_default(two):
    for name, tag in ((NAME, "first"), (f"{NAME}.first", "first"), (f"{NAME}.second", "second")):
        loaded = timm.create_model(name, pretrained=True)
        assert same(two[tag], loaded)
        assert loaded.kappa_head.latent_dim == two[tag].kappa_head.latent_dim
        assert loaded.kappa_head.kappa_map == two[tag].kappa_head.kappa_map
    assert timm.get_pretrained_cfg(NAME).tag == "first"
    assert timm.get_pretrained_cfg(f"{NAME}.second").description == "the second"


@recent_timm
def test_timm_lists_them(two):
    names = [f"{NAME}.first", f"{NAME}.second"]
    assert [n for n in timm.list_pretrained("vi_simsiam*") if n.startswith(NAME + ".")] == names
    assert [n for n in timm.list_models("vi_simsiam*", pretrained=True) if n.startswith(NAME + ".")] == names
    assert timm.models.is_model_pretrained(NAME)


def test_the_images_are_those_of_the_tag(two):
    for pretrained in (True, False):
        config = timm.data.resolve_model_data_config(timm.create_model(NAME, pretrained=pretrained))
        assert config["input_size"] == (3, 64, 64)
        assert (config["crop_pct"], tuple(config["mean"])) == (1.0, (0.5, 0.5, 0.5))


def test_without_weights_the_network_is_the_same(two):
    """A floor to compare with must have the same heads."""
    model = timm.create_model(f"{NAME}.second", pretrained=False)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in two["second"].state_dict().items()
    }
    assert (model.kappa_head.latent_dim, model.kappa_head.kappa_map) == (9, "exp")
    assert not same(two["second"], model)


def test_torch_hub(two, root):
    load = {"repo_or_dir": str(root), "model": NAME, "source": "local", "pretrained": True}
    assert same(two["first"], torch.hub.load(**load))
    assert same(two["second"], torch.hub.load(**load, pretrained_cfg="second"))


def test_what_the_user_says_about_the_source_counts(two, tmp_path, narrow, narrow_args):
    other = narrow(NAME, latent_dim=21)
    export = export_model(other, tmp_path / "other")
    overlay = {"file": str(export / "model.safetensors")}
    args = {"pretrained_cfg_overlay": overlay, **narrow_args(NAME), "latent_dim": 21}
    loaded = timm.create_model(NAME, pretrained=True, **args)
    assert loaded.kappa_head.latent_dim == 21
    assert same(other, loaded)
    with pytest.raises(RuntimeError, match=r"of no/where cannot be had"):  # not the shipped file
        timm.create_model(
            NAME, pretrained=True, pretrained_cfg_overlay={"hf_hub_id": "no/where"}, cache_dir=tmp_path
        )


def test_another_latent_dimension_than_the_tags_is_refused(two):
    with pytest.raises(RuntimeError, match=r"latent_dim=16, not 64"):
        timm.create_model(NAME, pretrained=True, latent_dim=64)


def test_fine_tuning_and_features(two, images):
    tuned = timm.create_model(NAME, pretrained=True, num_classes=10)
    assert tuned.kappa_head is None
    assert torch.equal(tuned.layer4[0].conv1.weight, two["first"].layer4[0].conv1.weight)
    features = timm.create_model(NAME, pretrained=True, features_only=True).eval()
    expected = two["first"].forward_intermediates(images, intermediates_only=True)
    for got, want in zip(features(images), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_an_export_of_it_is_its_own(two, tmp_path):
    loaded = timm.create_model(f"{NAME}.second", pretrained=True)
    again = timm.create_model(f"local-dir:{export_model(loaded, tmp_path / 'again')}", pretrained=True)
    assert same(loaded, again)
    assert not {"tag", "description", "file"} & {
        k for k, v in again.pretrained_cfg.items() if v and k != "file"
    }


def test_a_file_that_is_not_what_was_shipped(two):
    path = weights.FOLDER / f"{NAME}.first.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        RuntimeError, match=r"first\.safetensors is not the file that was shipped: its sha256"
    ):
        timm.create_model(NAME, pretrained=True)
    timm.create_model(f"{NAME}.second", pretrained=True)
    path.unlink()
    with pytest.raises(RuntimeError, match=r"first\.safetensors, which is not there: "):
        timm.create_model(NAME, pretrained=True)


def test_a_name_without_weights_says_which_have(two):
    with pytest.raises(RuntimeError) as raised:
        timm.create_model("simsiam_resnet50", pretrained=True)
    said = str(raised.value)
    assert said.startswith("No pretrained weights exist for simsiam_resnet50; the names that have some: ")
    assert f"{NAME}.first, {NAME}.second" in said
    assert "\n" not in said
    with pytest.raises(RuntimeError, match=rf"{NAME} has no tag 'third'; names with weights: {NAME}\.first"):
        timm.create_model(f"{NAME}.third", pretrained=True)


@pytest.mark.parametrize("name", [NAME, "dino", "kappa"])
def test_with_an_empty_table(name, tmp_path, monkeypatch, narrow_args):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert weights.shipped() == {}
    cfg = {"pretrained_cfg": {"input_size": (3, 64, 64)}}  # in place of what this version may ship
    with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {name}.*ships none"):
        timm.create_model(name, pretrained=True, **cfg)
    assert vissl_zoo.create_model(name, latent_dim=8).kappa_head is not None
