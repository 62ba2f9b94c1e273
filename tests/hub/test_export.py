"""An export is a folder that timm loads back, written whole or not at all."""

import json
import os

import pytest
import timm
import torch
from safetensors import safe_open

import vissl_zoo
from vissl_zoo.hub import export, export_model, load_heads

# Older timm cannot load two-channel weights, and tells the wrong width of a concatenating pooling.
recent_timm = pytest.mark.skipif(not hasattr(timm.models, "get_model_args"), reason="timm is too old for it")
FILES = {"config.json", "model.safetensors"}
SMALL = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}


def small_model(name="vi_simsiam_resnet18", **kwargs):
    torch.manual_seed(0)
    backbone = {} if "backbone" in kwargs else SMALL
    return vissl_zoo.create_model(name, **backbone, **kwargs).eval()


def assert_same(a, b):
    assert type(a) is type(b)
    assert a.state_dict().keys() == b.state_dict().keys()
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key
    for name in ("kappa_head", "prototype_head"):
        assert (getattr(a, name) is None) == (getattr(b, name) is None)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("vi_simsiam_resnet18", {"latent_dim": 33, "kappa_map": "exp"}),
        ("dino_resnet18_cifar", {"prototypes": 24, "bottleneck_dim": 6, "teacher_temperature": 0.07}),
        ("simsiam", {"backbone": "test_vit.r160_in1k"}),
        ("vi_simsiam", {"backbone": "test_efficientnet", "num_classes": 4, "kappa_head": True}),
        ("dino", {"backbone": "test_convnext", "prototypes": 5}),
        pytest.param("dino", {"backbone": "test_convnext", "in_chans": 2}, marks=recent_timm),
        ("vi_simsiam_resnet18", {"num_classes": 7}),
        ("vi_simsiam_resnet18", {"kappa_head": False}),
        pytest.param("simsiam_resnet18", {"global_pool": "catavgmax"}, marks=recent_timm),
    ],
)
def test_round_trip(name, kwargs, tmp_path):
    model = small_model(name, **kwargs)
    folder = export_model(model, tmp_path / "export")
    assert {p.name for p in folder.iterdir()} == FILES
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert_same(model, loaded)
    if model.kappa_head is not None:
        x = torch.randn(2, *model.pretrained_cfg["input_size"])[:, :1].repeat(
            1, kwargs.get("in_chans", 3), 1, 1
        )
        for a, b in zip(model.represent(x), loaded.represent(x), strict=True):
            assert torch.equal(a, b)
        assert loaded.kappa_head.latent_dim == model.kappa_head.latent_dim
        assert loaded.kappa_head.kappa_map == model.kappa_head.kappa_map
    if model.prototype_head is not None:
        assert loaded.prototype_head.teacher_temperature == model.prototype_head.teacher_temperature


def test_config_is_in_timm_form(tmp_path):
    model = small_model(latent_dim=2048, kappa_map="softplus")
    folder = export_model(model, tmp_path / "export", metrics={"knn": {"top1": 0.5}})
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "vi_simsiam_resnet18"
    assert (config["num_classes"], config["num_features"]) == (0, 16)
    assert config["model_args"]["latent_dim"] == 2048
    assert config["model_args"]["kappa_map"] == "softplus"
    assert config["metrics"] == {"knn": {"top1": 0.5}}
    cfg = config["pretrained_cfg"]
    size = list(timm.get_pretrained_cfg("vi_simsiam_resnet18").input_size)
    assert (cfg["input_size"], cfg["first_conv"], cfg["classifier"]) == (size, "conv1", "fc")
    assert not {"file", "url", "source", "state_dict"} & cfg.keys()


def test_the_header_says_what_rebuilds_the_model(tmp_path):
    """So that the file alone, laid over a registered name, is not read with another κ map."""
    folder = export_model(small_model(latent_dim=33, kappa_map="exp"), tmp_path / "export")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["format"] == "pt"  # transformers asks for it
    described = json.loads(header["vissl_zoo"])
    assert described["architecture"] == "vi_simsiam_resnet18"
    assert described["model_args"]["latent_dim"] == 33
    assert described["model_args"]["kappa_map"] == "exp"


def test_fine_tuning_an_export_adds_no_head(tmp_path):
    folder = export_model(small_model(), tmp_path / "export")
    tuned = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=10)
    assert tuned.kappa_head is None
    again = timm.create_model(f"local-dir:{export_model(tuned, tmp_path / 'tuned')}", pretrained=True)
    assert_same(tuned, again)


def test_reset_after_creation_is_what_is_exported(tmp_path):
    model = small_model(num_classes=10, kappa_head=True)
    model.reset_classifier(3)
    assert_same(model, timm.create_model(f"local-dir:{export_model(model, tmp_path / 'a')}", pretrained=True))
    model = small_model()
    model.reset_classifier(3, kappa_head=True)
    assert_same(model, timm.create_model(f"local-dir:{export_model(model, tmp_path / 'b')}", pretrained=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_memory_format(dtype, tmp_path):
    model = small_model().to(dtype=dtype, memory_format=torch.channels_last)
    loaded = timm.create_model(f"local-dir:{export_model(model, tmp_path / 'e')}", pretrained=True)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key].to(value.dtype))


def test_a_timm_model_with_a_kappa_head(tmp_path):
    model = vissl_zoo.add_kappa_head(timm.create_model("test_resnet", num_classes=5).eval(), latent_dim=9)
    folder = export_model(model, tmp_path / "export")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))
    assert torch.equal(loaded.represent(x).uncertainty, model.represent(x).uncertainty)
    assert tuple(loaded.pretrained_cfg["mean"]) == (
        0.5,
        0.5,
        0.5,
    )  # the statistics its weights were made with


def test_heads_and_readme(tmp_path):
    heads = {"projector.0.weight": torch.randn(4, 3).T, "predictor.0.weight": torch.randn(2)}
    folder = export_model(small_model(), tmp_path / "export", heads=heads, readme="# Modèle κ\n")
    assert {p.name for p in folder.iterdir()} == FILES | {"heads.safetensors", "README.md"}
    assert (folder / "README.md").read_text(encoding="utf-8") == "# Modèle κ\n"
    loaded = load_heads(folder)
    assert loaded.keys() == heads.keys()
    assert all(torch.equal(loaded[k], heads[k]) for k in heads)
    export_model(small_model(), folder)
    assert load_heads(folder) is None  # an earlier model's projector would be a lie
    assert (folder / "README.md").exists()


def test_failure_leaves_the_old_export(tmp_path, monkeypatch):
    folder = export_model(small_model(), tmp_path / "export", readme="old")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match=r"config\.json"):
        export_model(small_model(latent_dim=5), folder, readme="new", metrics={"top1": float("nan")})

    def stop(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(export, "save_config_for_hf", stop)
    with pytest.raises(OSError, match="disk full"):
        export_model(small_model(latent_dim=5), folder, readme="new")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["export"]


def test_an_argument_that_is_no_json_is_named(tmp_path):
    model = small_model(act_layer=torch.nn.SiLU)
    with pytest.raises(ValueError, match="act_layer"):
        export_model(model, tmp_path / "export")


def test_an_export_that_would_not_load_back_is_refused(tmp_path):
    model = small_model()
    model.fc = torch.nn.Linear(16, 2)  # behind timm's back
    with pytest.raises(ValueError, match=r"fc\.bias, fc\.weight differ"):
        export_model(model, tmp_path / "export")
    assert os.listdir(tmp_path) == []


def test_only_models_of_the_zoo(tmp_path):
    with pytest.raises(TypeError, match="ResNet"):
        export_model(timm.create_model("test_resnet"), tmp_path / "export")


def test_random_state_is_left_alone(tmp_path):
    model = small_model()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    export_model(model, tmp_path / "export")
    assert torch.equal(torch.rand(4), expected)
