"""Checkpoints: what goes in comes out, whole or not at all, without pickle."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vissl_zoo.errors import UserError
from vissl_zoo.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint

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
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, 2, model, optimizer, {"seconds": 0})
    assert newest_checkpoint(tmp_path) == kept
    monkeypatch.undo()
    assert load_checkpoint(kept, model, optimizer)["step"] == 1


def test_newest(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    for name in ("step_0000009", "step_9999999", "step_10000000", ".unfinished"):
        (tmp_path / name).mkdir()
    assert newest_checkpoint(tmp_path).name == "step_10000000"


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
