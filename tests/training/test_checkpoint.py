"""Checkpoints: what goes in comes out, whole or not at all, without pickle."""

import json
import os
import pathlib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vissl_zoo.errors import UserError
from vissl_zoo.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint, set_aside
from vissl_zoo.training.checkpoint_manifest import seal

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd without momentum": lambda p: torch.optim.SGD(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
}


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).to(dtype)


def train(model, optimizer, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 3, 4, 4, generator=generator).to(next(model.parameters()).dtype)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_happened(tmp_path, name, dtype):
    model = network(dtype)
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 3)
    folder = save_checkpoint(tmp_path, 3, model, optimizer, {"seconds": 1.5})
    other = network(dtype)
    restored = OPTIMIZERS[name](other.parameters())
    state = load_checkpoint(folder, other, restored)
    assert (state["step"], state["seconds"]) == (3, 1.5)
    train(model, optimizer, 2, seed=2)
    train(other, restored, 2, seed=2)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
        assert value.dtype == other.state_dict()[key].dtype


def test_memory_formats_are_kept_apart_from_values(tmp_path):
    model = network().to(memory_format=torch.channels_last)
    folder = save_checkpoint(tmp_path, 1, model, OPTIMIZERS["sgd"](model.parameters()), {"seconds": 0})
    saved = load_file(folder / "method.safetensors")
    assert all(torch.equal(v, saved[k]) for k, v in model.state_dict().items())


def test_the_older_ones_go_and_a_file_from_a_crash_is_no_obstacle(tmp_path):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "method.safetensors").write_bytes(b"half")
    for step in (1, 2, 2):
        save_checkpoint(tmp_path, step, model, optimizer, {"seconds": 0})
    assert [p.name for p in tmp_path.iterdir()] == ["step_0000002"]


def test_a_crash_while_writing_leaves_the_older_one(tmp_path, monkeypatch):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    kept = save_checkpoint(tmp_path, 1, model, optimizer, {"seconds": 0})

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(json, "dumps", full)
    with pytest.raises(UserError, match="step 2 cannot be written: no space left"):
        save_checkpoint(tmp_path, 2, model, optimizer, {"seconds": 0})
    assert newest_checkpoint(tmp_path) == (kept, {})
    monkeypatch.undo()
    assert load_checkpoint(kept, model, optimizer)["step"] == 1


def test_newest(tmp_path):
    assert newest_checkpoint(tmp_path / "none") == (None, {})
    for name in ("step_0000009", "step_9999999", "step_10000000", ".unfinished"):
        (tmp_path / name).mkdir()
        seal(tmp_path / name)
    assert newest_checkpoint(tmp_path)[0].name == "step_10000000"


DAMAGE = {
    "method.safetensors differs from its sha256": lambda folder: flip(folder / "method.safetensors"),
    "optimizer.safetensors is missing": lambda folder: (folder / "optimizer.safetensors").unlink(),
    "state.json differs from its sha256": lambda folder: (folder / "state.json").write_bytes(b""),
    "manifest.json is missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json is damaged": lambda folder: (folder / "manifest.json").write_bytes(b"[]"),
}


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("wrong", DAMAGE)
def test_the_newest_that_is_whole_is_taken_and_the_damaged_one_no_longer_counts(tmp_path, wrong):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, 1)
    good, bad = (save_checkpoint(tmp_path, step, model, optimizer, {"seconds": 0}, keep=2) for step in (4, 6))
    DAMAGE[wrong](bad)
    assert newest_checkpoint(tmp_path) == (good, {bad: wrong})
    set_aside([bad])
    newest = save_checkpoint(tmp_path, 8, model, optimizer, {"seconds": 0}, keep=2)
    assert {p.name for p in tmp_path.iterdir()} == {good.name, newest.name, f"damaged_{bad.name}"}


def test_all_is_on_the_disk_before_the_name_and_the_name_before_anything_is_removed(tmp_path, monkeypatch):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    save_checkpoint(tmp_path, 1, model, optimizer, {"seconds": 0})
    done = []
    fsync, rename = os.fsync, pathlib.Path.rename

    def note(descriptor):
        done.append(pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(
        pathlib.Path, "rename", lambda a, b: (done.append(f"{a.name} > {b.name}"), rename(a, b))[1]
    )
    save_checkpoint(tmp_path, 2, model, optimizer, {"seconds": 0})
    files = {"method.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert set(done[:4]) == files
    assert done[4:] == [
        ".unfinished",
        ".unfinished > step_0000002",
        tmp_path.name,
        "step_0000001 > .removed_step_0000001",
    ]


@pytest.mark.parametrize("file", ["method.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00garbage!"])
def test_a_damaged_one_is_an_error_of_one_line(tmp_path, file, content):
    model = network()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, 1)
    folder = save_checkpoint(tmp_path, 1, model, optimizer, {"seconds": 0})
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError, match="cannot be resumed") as error:
        load_checkpoint(folder, model, optimizer)
    assert "\n" not in str(error.value)


def test_another_model_is_an_error_of_one_line(tmp_path):
    model = network()
    folder = save_checkpoint(tmp_path, 1, model, OPTIMIZERS["sgd"](model.parameters()), {"seconds": 0})
    other = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(UserError) as error:
        load_checkpoint(folder, other, OPTIMIZERS["sgd"](other.parameters()))
    assert "\n" not in str(error.value)
