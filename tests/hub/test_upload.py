"""From a run to the Hub and back, against a server on this machine: plain timm, the whole model, pinned, damaged."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch

import vissl_zoo.hub.upload
from vissl_zoo.commands import main
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.hub.repository import write_repository
from vissl_zoo.hub.upload import check_repo_id, push

spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)

REPO = "me/model"
SUMS = """
import hashlib
def sums(model):
    state = {k: v.contiguous().numpy().tobytes() for k, v in sorted(model.state_dict().items())}
    return {k: hashlib.sha1(v).hexdigest() for k, v in state.items()}
def attempt(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


def sums(model):
    state = {k: v.contiguous().numpy().tobytes() for k, v in sorted(model.state_dict().items())}
    return {k: hashlib.sha1(v).hexdigest() for k, v in state.items()}


def python(code, hub_url, home, *arguments):
    """Run code in a fresh interpreter that knows this Hub alone; returns the JSON of its last line."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_TOKEN": hub_server.TOKEN}
    done = subprocess.run(
        [sys.executable, "-c", SUMS + code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small model on a backbone of timm's, and its export with heads and a card."""
    torch.manual_seed(0)
    args = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "latent_dim": 33, "kappa_map": "exp"}
    model = vissl_zoo.create_model("vi_simsiam_resnet18", **args).eval()
    card = render_card(model, Record("VI-SimSiam", "shapes", 64, "accelerate launch train.py"))
    heads = {"projector.weight": torch.ones(2, 2)}
    folder = export_model(model, tmp_path_factory.mktemp("run") / "export", heads=heads, readme=card)
    return model, folder


@pytest.fixture(scope="module")
def hub():
    with hub_server.HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def published(hub, exported, tmp_path_factory):
    """Publish, also twice and where it is forbidden, and load what was published; what came of each."""
    first = exported[1]
    other = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=8)
    second = export_model(other, tmp_path_factory.mktemp("second"))
    # One bit of a tensor is another: the size is right, and safetensors cannot tell.
    damaged = bytearray((first / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    hub.blobs["f" * 64] = bytes(damaged)
    hub.commit("me/evil", "main", {"vissl_zoo.safetensors": "f" * 64})
    code = """
import contextlib, io, json, sys, timm, vissl_zoo
from vissl_zoo.commands import main
first, second, args = sys.argv[1:]
args = json.loads(args)
def publish(*arguments):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(["publish", *arguments])
    return code, out.getvalue(), err.getvalue().splitlines()
def by_name(repo):
    overlay = {"hf_hub_id": repo, "hf_hub_filename": "vissl_zoo.safetensors"}
    return timm.create_model("vi_simsiam_resnet18", pretrained=True, pretrained_cfg_overlay=overlay, **args)
def state(model):
    return sums(model), model.kappa_head.latent_dim, model.kappa_head.kappa_map
outcomes = [
    publish(first, "--repo-id", "me/model", "--private"),
    publish(first, "--repo-id", "me/again"),
    publish(second, "--repo-id", "me/again", "--revision", "v2"),
]
from huggingface_hub import hf_hub_download
commit = hf_hub_download("me/again", "config.json", revision="full").split("/snapshots/")[1][:40]
outcomes += [publish(second, "--repo-id", "me/again"), publish(first, "--repo-id", "forbidden/model")]
names = ["hf-hub:me/model@full", f"hf-hub:me/again@{commit}", "hf-hub:me/again@full"]
loaded = [attempt(lambda: state(timm.create_model(name, pretrained=True))) for name in names]
loaded.append(attempt(lambda: state(by_name("me/model"))))
failures = [
    attempt(lambda: by_name("me/evil")),
    attempt(lambda: timm.create_model("hf-hub:me/model@" + "0" * 40, pretrained=True)),
    attempt(lambda: by_name("me/none")),
]
print(json.dumps([outcomes, loaded, failures]))
"""
    args = json.dumps({"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]})
    outcomes, loaded, failures = python(code, hub.url, tmp_path_factory.mktemp("home"), first, second, args)
    return {"outcomes": outcomes, "loaded": loaded, "failures": failures, "second": other}


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


def test_plain_timm_loads_the_backbone(published, hub, exported, tmp_path):
    folder = write_repository(exported[1], tmp_path / "D", REPO, Record("VI-SimSiam"))
    code = """
import json, sys, timm
model = timm.create_model("hf-hub:me/model", pretrained=True)
local = attempt(lambda: sums(timm.create_model("local-dir:" + sys.argv[1], pretrained=True)))
tuned = timm.create_model("hf-hub:me/model", pretrained=True, num_classes=3)
refused = attempt(lambda: timm.create_model("hf-hub:me/model@full", pretrained=True))
print(json.dumps([sums(model), local, sums(tuned), type(model).__name__, refused, "vissl_zoo" in sys.modules]))
"""
    plain, local, tuned, name, refused, imported = python(code, hub.url, tmp_path, folder)
    want = {k: v for k, v in sums(exported[0]).items() if not k.startswith("kappa_head.")}
    assert plain == want
    if hasattr(timm.models, "get_model_args"):  # older timm reads every local-dir as a pickle
        assert local == want
    assert {k: v for k, v in tuned.items() if not k.startswith("fc.")} == want
    assert (name, imported) == ("ResNet", False)
    assert "Unknown model (vi_simsiam_resnet18)" in refused


def test_the_whole_model_by_every_name(published, exported):
    """By the branch, by a registered name, and by a commit, which stays what it was when the branch has moved."""
    branch, pinned, moved, by_name = published["loaded"]
    assert (
        branch == pinned == by_name == [sums(exported[0]), 33, "exp"]
    )  # the name learns d and map from the file
    assert moved == [sums(published["second"]), 8, "softplus"]


def test_failures_are_one_line(published):
    damaged, no_revision, no_repository = published["failures"]
    assert damaged.startswith("RuntimeError: ")
    assert "is damaged: its content has not the sha256 ffff" in damaged
    assert "Revision" in no_revision
    assert no_repository.startswith("RuntimeError: vissl_zoo.safetensors of me/none cannot be had: ")
    assert "\n" not in damaged + no_repository


def test_without_a_token_or_a_network(exported, monkeypatch, capsys):
    """One line each, and the token is asked for before any work is done."""
    publish = ["publish", str(exported[1]), "--repo-id", REPO]
    monkeypatch.setattr(vissl_zoo.hub.upload, "get_token", lambda: None)
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
