"""A gradient that is not finite costs one step, and not the weights."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vissl_zoo import training
from vissl_zoo.errors import UserError
from vissl_zoo.training.gradient_guard import PATIENCE, GradientGuard

CPU_BF16 = SimpleNamespace(mixed_precision="bf16", device=torch.device("cpu"))


def layer(value: float) -> nn.Module:
    module = nn.Linear(3, 2)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.weight.grad[1, 2] = value
    return module


@pytest.mark.parametrize("value, allowed", [(1.0, True), (float("nan"), False), (float("inf"), False)])
def test_one_bad_number_is_seen(value, allowed, capsys):
    guard = GradientGuard(layer(value), CPU_BF16)
    assert [guard.allows(), guard.allows()] == [allowed] * 2
    assert capsys.readouterr().err.count("is left out") == (not allowed)  # once is enough


@pytest.mark.parametrize("precision, device", [("no", "cpu"), ("fp16", "cuda"), ("bf16", "cuda")])
def test_elsewhere_nothing_is_looked_at(precision, device):
    accelerator = SimpleNamespace(mixed_precision=precision, device=torch.device(device))
    assert GradientGuard(layer(float("nan")), accelerator).allows()


def test_many_are_too_many():
    guard = GradientGuard(layer(float("nan")), CPU_BF16)
    for _ in range(PATIENCE):
        guard.allows()
    with pytest.raises(UserError, match=r"21 of 21 gradients .* --mixed-precision no"):
        guard.allows()


def test_frozen_parameters_have_no_gradient():
    module = layer(1.0).requires_grad_(False)
    module.weight.requires_grad_(True)
    module.bias.grad = None
    assert GradientGuard(module, CPU_BF16).allows()


def test_training_goes_on_without_the_step(train_main, shapes_folder, tmp_path, monkeypatch):
    """The gradient of step 2 of 4 has one NaN; weights and momentum stay finite, and three steps are taken."""
    build = training.build_method
    calls = []

    def spoil(gradient):
        calls.append(0)
        return (
            torch.where(torch.arange(gradient.numel()).view_as(gradient) == 0, torch.nan, gradient)
            if len(calls) == 2
            else gradient
        )

    def build_spoilt(*arguments):
        method = build(*arguments)
        next(method.projector.parameters()).register_hook(spoil)
        return method

    monkeypatch.setattr(training, "build_method", build_spoilt)
    flags = ("--image-size", "32", "--batch-size", "8", "--max-steps", "4", "--method.latent-dim", "16")
    where = ("--data.path", shapes_folder, "--output-dir", tmp_path / "run", "--no-report")
    outcome = train_main(*flags, *where, "--mixed-precision", "bf16")
    assert outcome.code == 0, outcome.err
    assert "is left out" in outcome.err
    assert len(calls) == 4
    model = load_file(tmp_path / "run" / "export" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in model.values())
