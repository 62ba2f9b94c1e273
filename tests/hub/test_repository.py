"""From a run to the Hub and back, against a server on this machine: plain timm, the whole model, pinned, damaged."""

import contextlib
import hashlib
import importlib.util
import io
import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

import vissl_zoo.hub.repository
from vissl_zoo.commands import main
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.hub.repository import check_repo_id, push, write_repository

spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)

REPO = "me/model"
NARROW = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}
TEMPLATE = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


def sums(model):
    state = {k: v.contiguous().numpy().tobytes() for k, v in sorted(model.state_dict().items())}
    return {k: hashlib.sha1(v).hexdigest() for k, v in state.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small model on a backbone of timm's, and its export with heads and a card."""
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam_resnet18", **NARROW, latent_dim=33, kappa_map="exp").eval()
    card = render_card(model, Record("VI-SimSiam", "shapes", 64, "accelerate launch train.py"))
    heads = {"projector.weight": torch.ones(2, 2)}
    folder = export_model(model, tmp_path_factory.mktemp("run") / "export", heads=heads, readme=card)
    return model, folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub on this machine, the only one that this process knows meanwhile."""
    with hub_server.HubServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", hub_server.TOKEN)
        known = {"ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path_factory.mktemp("home"))}
        for name, value in {**known, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            patch.setattr(huggingface_hub.constants, name, value)
        patch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", TEMPLATE.format(server.url))
        yield server


def publish(*arguments):
    """Exit code, stdout and lines of stderr of `vissl-zoo publish`."""
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(["publish", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue().splitlines()


@pytest.fixture(scope="module")
def published(hub, exported, tmp_path_factory):
    """Publish, also twice and where it is forbidden; what came of each, the other model, and an early commit."""
    first = exported[1]
    other = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=8)
    second = export_model(other, tmp_path_factory.mktemp("second"))
    outcomes = [
        publish(first, "--repo-id", REPO, "--private"),
        publish(first, "--repo-id", "me/again"),
        publish(second, "--repo-id", "me/again", "--revision", "v2"),
    ]
    commit = hub.files("me/again", "full")[0]
    outcomes += [publish(second, "--repo-id", "me/again"), publish(first, "--repo-id", "forbidden/model")]
    return {"outcomes": outcomes, "other": other, "commit": commit}


def by_name(repo):
    """The registered name with the whole model of a repository."""
    overlay = {"hf_hub_id": repo, "hf_hub_filename": "vissl_zoo.safetensors"}
    return timm.create_model("vi_simsiam_resnet18", pretrained=True, pretrained_cfg_overlay=overlay, **NARROW)


def test_what_arrives(published, hub, exported):
    assert [outcome[0] for outcome in published["outcomes"]] == [0, 0, 0, 0, 2]
    main, full = (hub.files(REPO, branch)[1] for branch in ("main", "full"))
    assert set(main) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "vissl_zoo.safetensors",
    }
    assert set(full) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "heads.safetensors",
    }
    assert (
        full["model.safetensors"]
        == hashlib.sha256((exported[1] / "model.safetensors").read_bytes()).hexdigest()
    )
    assert json.loads(main["config.json"])["architecture"] == "resnet18"
    assert b"hf-hub:me/model@full" in main["README.md"]
    assert "hf-hub:me/model@full" in published["outcomes"][0][1]


def test_publishing_again_leaves_no_weights_of_the_old(published, hub):
    assert "heads.safetensors" not in hub.files("me/again", "full")[1]
    assert json.loads(hub.files("me/again", "main")[1]["config.json"])["architecture"] == "test_resnet"
    assert json.loads(hub.files("me/again", "v2-full")[1]["config.json"])["architecture"] == "vi_simsiam"
    assert b"hf-hub:me/again@v2-full" in hub.files("me/again", "v2")[1]["README.md"]


def test_a_refusal_is_one_line(published):
    _, _, lines = published["outcomes"][4]
    assert len(lines) == 1
    assert "the Hub refuses forbidden/model: the token may not write there" in lines[0]


def test_plain_timm_loads_the_backbone(published, exported, tmp_path):
    """Its configuration and its keys are timm's alone, and so is the class that comes of them."""
    folder = write_repository(exported[1], tmp_path / "D", REPO, Record("VI-SimSiam"))
    want = {k: v for k, v in sums(exported[0]).items() if not k.startswith("kappa_head.")}
    plain = timm.create_model("hf-hub:me/model", pretrained=True)
    assert sums(plain) == want
    assert type(plain) is timm.models.ResNet
    if hasattr(timm.models, "get_model_args"):  # older timm reads every local-dir as a pickle
        assert sums(timm.create_model(f"local-dir:{folder}", pretrained=True)) == want
    tuned = timm.create_model("hf-hub:me/model", pretrained=True, num_classes=3)
    assert {k: v for k, v in sums(tuned).items() if not k.startswith("fc.")} == want


def test_the_whole_model_by_every_name(published, exported):
    """By the branch, by a registered name, and by a commit, which stays what it was when the branch has moved."""

    def load(name):
        return timm.create_model(name, pretrained=True)

    def state(model):
        return sums(model), model.kappa_head.latent_dim, model.kappa_head.kappa_map

    expected = (sums(exported[0]), 33, "exp")
    assert state(load("hf-hub:me/model@full")) == expected
    assert state(load(f"hf-hub:me/again@{published['commit']}")) == expected
    assert state(by_name(REPO)) == expected  # the name learns d and map from the file
    assert state(load("hf-hub:me/again@full")) == (sums(published["other"]), 8, "softplus")


def test_failures_are_one_line(published, hub, exported):
    damaged = bytearray((exported[1] / "model.safetensors").read_bytes())
    damaged[-1] ^= 1  # one bit of a tensor is another: the size is right, and safetensors cannot tell
    hub.blobs["f" * 64] = bytes(damaged)
    hub.commit("me/evil", "main", {"vissl_zoo.safetensors": "f" * 64})
    with pytest.raises(RuntimeError, match="is damaged: its content has not the sha256 ffff") as evil:
        by_name("me/evil")
    with pytest.raises(RuntimeError, match=r"^vissl_zoo.safetensors of me/none cannot be had: ") as none:
        by_name("me/none")
    assert "\n" not in f"{evil.value}{none.value}"
    with pytest.raises(Exception, match="Revision"):
        timm.create_model("hf-hub:me/model@" + "0" * 40, pretrained=True)


def test_without_a_token_or_a_network(exported, monkeypatch, capsys):
    """One line each, and the token is asked for before any work is done."""
    publish = ["publish", str(exported[1]), "--repo-id", REPO]
    monkeypatch.setattr(vissl_zoo.hub.repository, "get_token", lambda: None)
    assert main(publish) == 2
    assert "needs a token" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert main(publish) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the Hub (http://127.0.0.1:9) cannot be reached: " in said


def test_a_pickle_is_never_pushed(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        push(tmp_path, REPO)


@pytest.mark.parametrize("repo_id", ["model", "a/b/c", "a b/c", "/x", "me/..", ""])
def test_repo_id(repo_id):
    with pytest.raises(vissl_zoo.errors.UserError, match="--repo-id"):
        check_repo_id(repo_id)
