"""Batch norm over two processes is torch's own on the whole batch: values, gradients and statistics."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import nn

from vissl_zoo.networks import batch_norm
from vissl_zoo.networks.batch_norm import all_reduce_sum, synchronize_batch_norm, world_size

DRIVER = Path(__file__).with_name("batch_norm_driver.py")
CPU = torch.device("cpu")

_spec = importlib.util.spec_from_file_location("batch_norm_driver", DRIVER)
driver = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(driver)
every_layer = pytest.mark.parametrize("name", driver.layers())


@pytest.fixture(scope="module")
def two_processes(torchrun, tmp_path_factory):
    file = tmp_path_factory.mktemp("two") / "result.safetensors"
    torchrun(DRIVER, file)
    found = load_file(file)
    assert found.pop("processes") == 2
    return found


@every_layer
def test_two_processes_are_one_batch(two_processes, name):
    expected = driver.measure(name, driver.layers()[name])
    found = {k: v for k, v in two_processes.items() if k.startswith(f"{name}/")}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if found[key].dim() > value.dim():  # a statistic of each process
            assert torch.equal(found[key][0], found[key][1])
        torch.testing.assert_close(found[key], value.expand_as(found[key]), rtol=1e-12, atol=1e-12)


@every_layer
def test_halves_apart_would_differ(name):
    """The control: without the exchange each half has its own mean."""
    whole = driver.measure(name, driver.layers()[name])
    half = driver.measure(name, driver.layers()[name], rank=0, processes=2)
    key = f"{name}/out 0"
    assert (half[key] - whole[key][: len(half[key])]).abs().max() > 1e-3


@pytest.fixture
def converted(monkeypatch):
    """converted(module) -> it, as in a world of two; in the test itself the world is of one."""

    def converted(module):
        with monkeypatch.context() as patch:
            patch.setattr(batch_norm, "world_size", lambda: 2)
            return synchronize_batch_norm(module, CPU)

    return converted


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_in_a_world_of_one_it_is_torchs_own(converted, name, training):
    plain, ours = driver.layers()[name].train(training), converted(driver.layers()[name].train(training))
    assert type(plain) is not type(ours)
    for key, value in driver.measure(name, plain).items():
        assert torch.equal(driver.measure(name, converted(driver.layers()[name].train(training)))[key], value)
    assert isinstance(ours, type(plain))


def test_alone_nothing_is_converted():
    assert world_size() == 1
    model = nn.Sequential(nn.BatchNorm1d(3))
    assert synchronize_batch_norm(model, CPU) is model
    assert type(model[0]) is nn.BatchNorm1d
    x = torch.randn(4)
    assert all_reduce_sum(x) is x


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit"])
def test_conversion_keeps_keys_parameters_and_modules(converted, backbone):
    model = timm.create_model(backbone)
    keys, parameters = list(model.state_dict()), {n: id(p) for n, p in model.named_parameters()}
    kinds = {n: type(m) for n, m in model.named_modules()}
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    model = converted(model)
    assert list(model.state_dict()) == keys
    assert {n: id(p) for n, p in model.named_parameters()} == parameters
    for name, module in model.named_modules():
        assert isinstance(module, kinds[name])
        assert (type(module) is not kinds[name]) == (name in norms)
    assert bool(norms) == (backbone != "test_vit")
    again = {n: type(m) for n, m in model.named_modules()}
    assert {n: type(m) for n, m in converted(model).named_modules()} == again


def test_there_is_a_backbone_with_timms_own_batch_norm():
    """Else the activation behind it would go untested on a real network."""
    model = timm.create_model("test_efficientnet")
    assert any(isinstance(m, BatchNormAct2d) for m in model.modules())


@pytest.fixture
def twins(converted, monkeypatch):
    """twins(layer) -> it, in a world of two whose other process has the same half of every batch."""

    def all_gather(parts, own):
        for part in parts:
            part.copy_(own)

    def twins(layer):
        layer = converted(layer)
        monkeypatch.setattr(batch_norm, "world_size", lambda: 2)
        monkeypatch.setattr(batch_norm.dist, "all_gather", all_gather)
        monkeypatch.setattr(batch_norm.dist, "all_reduce", lambda sums: sums.mul_(2))
        return layer

    return twins


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_normalised_in_float32(twins, dtype, channels_last):
    """Two processes with equal halves have the statistics and the gradients of one half."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    x = (300 + 4 * torch.randn(64, 3, 4, 4)).to(dtype).to(memory_format=order).requires_grad_()
    weight = torch.randn(64, 3, 4, 4).to(dtype)
    layer, alone = twins(nn.BatchNorm2d(3)), nn.BatchNorm2d(3)
    for norm in (layer, alone):
        norm.weight.data = torch.tensor([0.5, 1.0, 3.0])
    out = layer(x)
    assert out.dtype == dtype
    wide = x.detach().float().requires_grad_()
    expected = alone(wide)
    assert (out.float() - expected).abs().max() < 0.005 * expected.abs().max()
    assert layer.running_mean.dtype == torch.float32
    torch.testing.assert_close(layer.running_mean, 0.1 * x.detach().float().mean((0, 2, 3)))
    out.backward(weight)
    expected.backward(weight.float())
    assert x.grad.dtype == dtype
    assert (x.grad.float() - wide.grad).abs().max() < 0.01 * wide.grad.abs().max()
    torch.testing.assert_close(layer.weight.grad, alone.weight.grad, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(layer.bias.grad, alone.bias.grad, rtol=1e-3, atol=1e-2)


def test_a_wrong_shape_is_refused_as_torch_does(converted, monkeypatch):
    layer = converted(nn.BatchNorm2d(3))
    monkeypatch.setattr(batch_norm, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="expected 4D"):
        layer(torch.randn(4, 3))
