"""`vissl-zoo publish --dry-run`: the exact folder, or one line."""

import json
import socket

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.hub import export_model

FILES = {"README.md", "config.json", "model.safetensors", "vissl_zoo.safetensors"}
FULL = {"README.md", "config.json", "model.safetensors"}
HEADS = ("kappa_head.", "prototype_head.")
recent_timm = pytest.mark.skipif(
    not hasattr(timm.models, "get_model_args"), reason="older timm reads every local-dir as a pickle"
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a dry run touches no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def publish(*arguments):
    return main(["publish", *(str(a) for a in arguments)])


def files(folder):
    return {p.name for p in folder.iterdir() if p.is_file()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run(demo_run, tmp_path, capsys):
    """A run folder as train.py leaves it."""
    run, out = demo_run[0], tmp_path / "D"
    assert publish(run, "--repo-id", "me/model", "--dry-run", "--output-dir", out) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert files(out) == FILES
    assert files(out / "full") == FULL | {"heads.safetensors"}
    assert (out / "full" / "model.safetensors").read_bytes() == (
        run / "export" / "model.safetensors"
    ).read_bytes()
    record = ModelCard((out / "README.md").read_text()).data["vissl_zoo"]
    assert record["method"] == "VI-SimSiam"
    assert record["command"].startswith("accelerate launch train.py")
    assert publish(run, "--repo-id", "me/model", "--dry-run", "--output-dir", out) == 0  # again, over it


@recent_timm
@pytest.mark.parametrize(
    "name, args, backbone",
    [
        ("vi_simsiam", {"backbone": "test_resnet.r160_in1k", "latent_dim": 9}, "test_resnet"),
        (
            "dino",
            {"backbone": "test_convnext", "prototypes": 5, "num_classes": 3, "kappa_head": True},
            "test_convnext",
        ),
        (
            "simsiam",
            {"backbone": "test_vit", "img_size": 96, "global_pool": "avg", "in_chans": 1},
            "test_vit",
        ),
        ("kappa", {"backbone": "test_efficientnet", "kappa_hidden": 6}, "test_efficientnet"),
    ],
)
def test_both_faces(name, args, backbone, tmp_path):
    model = vissl_zoo.create_model(name, **args)
    export = export_model(model, tmp_path / "export")
    out = tmp_path / "D"
    assert publish(export, "--repo-id", "me/model", "--dry-run", "--output-dir", out) == 0
    state = model.state_dict()
    bare = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert json.loads((out / "config.json").read_text())["architecture"] == backbone
    assert not hasattr(bare, "represent")
    assert same(bare.state_dict(), {k: v for k, v in state.items() if not k.startswith(HEADS)})
    assert bare.num_classes == model.num_classes
    assert same(timm.create_model(f"local-dir:{out / 'full'}", pretrained=True).state_dict(), state)
    assert same(load_file(out / "vissl_zoo.safetensors"), state)


def test_a_backbone_that_timm_lacks_has_one_face(tmp_path):
    model = vissl_zoo.create_model("vi_simsiam_resnet18_cifar", channels=(8, 8, 16, 16), layers=(1, 1, 1, 1))
    out = tmp_path / "D"
    export = export_model(model, tmp_path / "export")
    assert publish(export, "--repo-id", "me/model", "--dry-run", "--output-dir", out) == 0
    assert files(out) == {"README.md", "vissl_zoo.safetensors"}
    assert files(out / "full") == FULL
    assert "timm has no architecture `resnet18_cifar`" in (out / "README.md").read_text()
    assert same(
        timm.create_model(f"local-dir:{out / 'full'}", pretrained=True).state_dict(), model.state_dict()
    )


def test_the_card_has_the_figures_of_an_evaluation(demo_run, tmp_path):
    metrics = {"data": "../d/cifar10", "split": "test", "knn": {"top1": 0.5, "k": 3}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    told = [
        "--evaluation",
        tmp_path,
        "--license",
        "mit",
        "--dataset",
        "uoft-cs/cifar10",
        "--note",
        "Half size.",
    ]
    assert publish(demo_run[0], "--repo-id", "me/m", "--dry-run", "--output-dir", tmp_path / "D", *told) == 0
    card = ModelCard((tmp_path / "D" / "README.md").read_text())
    assert (card.data.license, card.data.datasets) == ("mit", ["uoft-cs/cifar10"])
    [result] = card.data.eval_results
    assert (result.metric_value, result.dataset_type) == (0.5, "uoft-cs/cifar10")
    assert "Half size." in card.text


def test_bad_input_is_one_line(demo_run, tmp_path, capsys):
    run = demo_run[0]
    (tmp_path / "mine.txt").write_text("not yours")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.json").write_text('{"knn_top1": 1}')
    to = ["--repo-id", "me/model", "--dry-run"]
    for arguments, said in [
        ([], "publish needs RUN"),
        ([run], "publish needs --repo-id"),
        ([run, "--repo-id", "model"], "must be ORG/NAME"),
        ([tmp_path, *to], "holds no export"),
        ([tmp_path / "none", *to], "holds no export"),
        ([run, *to, "--output-dir", tmp_path], "holds bad, mine.txt"),
        ([run, *to, "--output-dir", tmp_path / "mine.txt"], "holds a file"),
        ([run, *to, "--evaluation", tmp_path], "holds no metrics.json"),
        ([run, *to, "--evaluation", tmp_path / "bad"], "is not of `vissl-zoo evaluate`"),
        ([run, *to, "--privat"], "--privat"),
    ]:
        assert publish(*arguments) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert (tmp_path / "mine.txt").read_text() == "not yours"


def test_an_export_that_cannot_be_loaded(tmp_path, capsys):
    export = export_model(vissl_zoo.create_model("vi_simsiam", backbone="test_resnet"), tmp_path / "export")
    (export / "model.safetensors").write_bytes(b"damaged")
    assert publish(export, "--repo-id", "me/model", "--dry-run") == 2
    err = capsys.readouterr().err
    assert "cannot be loaded: " in err
    assert err.count("\n") == 1


def test_an_export_is_not_written_over(tmp_path, capsys):
    """Its files have the names of those that are published."""
    export = export_model(vissl_zoo.create_model("vi_simsiam", backbone="test_resnet"), tmp_path / "export")
    assert publish(export, "--repo-id", "me/model", "--dry-run", "--output-dir", export) == 2
    assert "holds config.json, model.safetensors: give an empty folder" in capsys.readouterr().err
    assert files(export) == {"config.json", "model.safetensors"}


@recent_timm
def test_the_plain_face_is_no_export(tmp_path, capsys):
    export = export_model(vissl_zoo.create_model("vi_simsiam", backbone="test_resnet"), tmp_path / "export")
    out = tmp_path / "D"
    assert publish(export, "--repo-id", "me/model", "--dry-run", "--output-dir", out) == 0
    capsys.readouterr()
    assert publish(out, "--repo-id", "me/model", "--dry-run") == 2
    err = capsys.readouterr().err
    assert f"names test_resnet, which is no model of the zoo; the whole model is in {out / 'full'}" in err
    assert err.count("\n") == 1
    assert publish(out / "full", "--repo-id", "me/model", "--dry-run") == 0
