"""The MLP of the heads: full precision whatever surrounds it, and the same function in every runtime."""

import pytest
import torch
from torch import nn

from vissl_zoo.networks.full_precision import FullPrecisionMLP, autocast_disabled


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    module = FullPrecisionMLP(6, 5, 3)
    module(torch.randn(64, 6) * 2 + 1)  # gives the running statistics something to be
    return module.eval()


def by_hand(mlp, x, mean, var):
    """The same function written out in float64."""
    p = {k: v.double() for k, v in mlp.state_dict().items()}
    h = (x.double() @ p["fc1.weight"].T - mean) / (var + mlp.norm.eps).sqrt()
    h = (h * p["norm.weight"] + p["norm.bias"]).clamp(min=0)
    return h @ p["fc2.weight"].T + p["fc2.bias"]


def test_evaluation_uses_running_statistics(mlp):
    x = torch.randn(7, 6)
    expected = by_hand(mlp, x, mlp.norm.running_mean.double(), mlp.norm.running_var.double())
    torch.testing.assert_close(mlp(x).double(), expected, rtol=1e-5, atol=1e-6)


def test_training_uses_batch_statistics(mlp):
    x = torch.randn(9, 6)
    h = x.double() @ mlp.fc1.weight.double().T
    expected = by_hand(mlp, x, h.mean(0), h.var(0, correction=0))
    torch.testing.assert_close(mlp.train()(x).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("input_dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_output_dtype(mlp, dtype, input_dtype):
    out = mlp.to(dtype)(torch.randn(2, 6).to(input_dtype))
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_autocast_changes_nothing(mlp):
    x = torch.randn(7, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert nn.functional.linear(x, x).dtype == torch.bfloat16  # autocast is on around it
        inside = mlp(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, mlp(x))


@pytest.mark.parametrize("training", [False, True])
def test_narrow_weights_are_widened(mlp, training):
    """bfloat16 weights give what the float32 network with those rounded weights gives."""
    narrow = FullPrecisionMLP(6, 5, 3).to(torch.bfloat16).train(training)
    narrow.load_state_dict(mlp.state_dict())
    wide = FullPrecisionMLP(6, 5, 3).train(training)
    wide.load_state_dict(narrow.state_dict())
    x = torch.randn(32, 6)
    torch.testing.assert_close(narrow(x), wide(x))
    assert narrow.norm.running_mean.dtype == torch.bfloat16
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        mine, theirs = getattr(narrow.norm, name), getattr(wide.norm, name)
        torch.testing.assert_close(mine, theirs.to(mine.dtype))


def test_no_bias_before_batch_norm():
    assert FullPrecisionMLP(4, 3, 2).fc1.bias is None


def test_meta_device_has_no_autocast():
    assert FullPrecisionMLP(4, 3, 2, device="meta")(torch.empty(5, 4, device="meta")).shape == (5, 2)
    with autocast_disabled("meta"):
        pass
