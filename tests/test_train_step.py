"""A step by itself: what it is given, and that a method never makes the host read a number from the device."""

import contextlib
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from vissl_zoo.methods import METHODS, RECIPES, base, create_method
from vissl_zoo.training.training_data import to_device

NAMES = [
    "demo",
    "demo direct",
    *(f"{name}_resnet18_cifar10" for name in METHODS if name != "vi_simsiam"),
]


def small(name):
    """The recipe with a network that is built in no time, its views 2 + 1; "direct" is with DirectPred's predictor."""
    name, *predictor = name.split()
    recipe = RECIPES[name].recipe
    views = dataclasses.replace(recipe.views, low=1, low_size=16)
    method = dataclasses.replace(recipe.method, **({"predictor": predictor[0]} if predictor else {}))
    return dataclasses.replace(recipe, image_size=32, views=views, method=method)


def method_of(recipe):
    import vissl_zoo

    model = vissl_zoo.create_model(
        recipe.method.name, backbone="test_resnet", num_classes=0, **recipe.method.model_args()
    )
    return create_method(recipe.method.name, model, recipe.method).train()


def noise_views():
    return [torch.randn(4, 3, size, size) for size in (32, 32, 16)]


def fake_tensors_of(method, convert):
    """Put convert(value) in place of every parameter and buffer."""
    for module in method.modules():
        for owned in (module._parameters, module._buffers):
            for key, value in owned.items():
                if value is not None:
                    owned[key] = convert(value)


@pytest.mark.parametrize("name", NAMES)
def test_no_step_reads_a_number_from_the_device(name, monkeypatch):
    """Fake tensors have no values: a step that asked for one, which an accelerator's host would wait for, raises."""
    recipe = small(name)
    method = method_of(recipe)
    # its cache would keep fakes for the next test
    monkeypatch.setattr(base, "_pairs", base._pairs.__wrapped__)
    with FakeTensorMode(allow_non_fake_inputs=False) as fake:
        fake_tensors_of(method, fake.from_tensor)
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        views = [torch.empty(4, 3, size, size) for size in (32, 32, 16)]
        method.on_step_start(0.5)
        method(views).loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        method.on_step_end()


@pytest.fixture
def fake_cuda():
    with FakeTensorMode(), contextlib.suppress(RuntimeError, AssertionError):
        return torch.empty(2, device="cuda").copy_(torch.empty(2, device="cuda")).device
    pytest.skip("this torch asks for a CUDA driver even to copy fake tensors, as 2.6 does")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_no_step_mixes_devices(fake_cuda, name, monkeypatch):
    """Fake tensors of an accelerator need none, and raise when a step adds to them something made on the host.

    The forward pass and what a method does around it alone: autograd asks for the accelerator itself.
    """
    recipe = small(name)
    method = method_of(recipe)
    monkeypatch.setattr(base, "_pairs", base._pairs.__wrapped__)
    with FakeTensorMode(allow_non_fake_inputs=False), torch.no_grad():
        fake_tensors_of(method, lambda value: torch.empty(value.shape, dtype=value.dtype, device=fake_cuda))
        views = [torch.empty(4, 3, size, size, device=fake_cuda) for size in (32, 32, 16)]
        method.on_step_start(0.5)
        loss = method(views).loss
        method.on_step_end()
        assert loss.device == fake_cuda


@pytest.mark.parametrize("name", NAMES)
def test_every_step_runs_in_narrow_precision(name):
    """Under autocast what is written into a float32 buffer must not have become bfloat16."""
    recipe = small(name)
    method = method_of(recipe)
    views = noise_views()
    for progress in (0.0, 0.5):
        method.on_step_start(progress)
        with torch.autocast("cpu", torch.bfloat16):
            objective = method(views)
        objective.loss.backward()
        method.on_step_end()
        assert objective.loss.isfinite()
        assert objective.loss.dtype in (torch.float32, torch.float64)
    assert all(value.dtype in (torch.float32, torch.int64) for value in method.state_dict().values())


def test_that_reading_a_number_would_be_noticed():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.ones(3).sum().item()


def test_convolutions_run_channels_last():
    """The weights say so, and the views, which come out contiguous, are converted once, by the first layer."""
    recipe = small("demo")
    method = method_of(recipe).to(memory_format=torch.channels_last)
    formats, batches = [], []

    def look(module, inputs, output):
        formats.append(output.is_contiguous(memory_format=torch.channels_last))
        batches.append(len(output))

    for module in method.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(look)
    method(noise_views())
    assert formats
    assert all(formats)
    convolutions = len(formats) // 2
    assert batches == [8] * convolutions + [4] * convolutions  # crops of one resolution share one forward


def test_images_on_the_device_stay_there():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert to_device(images, torch.device("cpu")) is images
    assert to_device(images, torch.device("meta")).device.type == "meta"
