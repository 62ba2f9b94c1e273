"""Fast ways to run a model agree with plain float32, and what cannot be made fast stays plain."""

import copy

import numpy as np
import pytest
import timm
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vissl_zoo
from vissl_zoo.inference import forward
from vissl_zoo.inference.forward import exact_forward, fast_forward, fold_batch_norm, folded


def with_statistics(model):
    """The model with batch statistics as of training, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low in (
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
            ):
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return with_statistics(vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16))


@pytest.fixture
def images():
    return torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bfloat16, tolerance", [(False, 1e-5), (True, 0.02)])
def test_a_folded_copy_agrees_and_the_model_is_left_alone(net, images, bfloat16, tolerance):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.inference_mode():
        embedding, kappa, uncertainty = net.represent(images)
    found = folded(net, bfloat16=bfloat16)(images)
    assert all(part.dtype == torch.float32 for part in found)
    assert ((found[0] - embedding).norm(dim=1) / embedding.norm(dim=1)).max() < tolerance
    assert spearmanr(found[1], kappa)[0] > (0.99 if bfloat16 else 0.99999)
    assert (found[2] - uncertainty).abs().max() < tolerance
    assert len(found[1].unique()) == 64  # κ is not rounded to bfloat16, where it would tie
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    if not bfloat16:
        assert (found[0] - embedding).abs().max() > 0  # the control: it is not the same arithmetic


@pytest.mark.parametrize(
    "name, size, pairs", [("resnet18", 64, 20), ("test_resnet", 64, None), ("test_vit", 160, 0)]
)
def test_norms_that_alone_follow_a_convolution_are_folded(name, size, pairs):
    model = with_statistics(timm.create_model(name, num_classes=0))
    norms = sum(type(m) is nn.BatchNorm2d for m in model.modules())
    x = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        before = model(x)
        count = fold_batch_norm(model)
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)
    assert count == (norms if pairs is None else pairs)
    assert not any(type(m) is nn.BatchNorm2d for m in model.modules())


class Shared(nn.Module):
    """A convolution whose output is used beside the norm, and one that is called twice: not to be folded."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.first(x)
        x = x + self.one(x)
        return self.second(self.two(self.second(x))).mean((2, 3))


def test_norms_that_others_depend_on_are_not_folded():
    model, x = with_statistics(Shared()), torch.randn(2, 3, 4, 4)
    before = model(x)
    assert fold_batch_norm(model) == 0
    assert torch.equal(model(x), before)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).mean((2, 3)) if x.sum() > -1e9 else x.mean((2, 3))


def test_a_model_that_cannot_be_traced_is_not_folded(images):
    model = with_statistics(Untraceable())
    assert fold_batch_norm(model) == 0
    embedding, kappa, uncertainty = folded(model, bfloat16=False)(images)
    torch.testing.assert_close(embedding, model(images))
    assert kappa is uncertainty is None


@pytest.mark.parametrize("native", [False, True])
def test_the_hardware_decides_on_bfloat16(net, images, monkeypatch, native):
    monkeypatch.setattr(forward, "bfloat16_is_native", lambda device: native)
    found = fast_forward(net, 32)(images)
    expected = folded(net, bfloat16=native)(images)
    assert torch.equal(found.embedding, expected.embedding)
    assert not torch.equal(found.embedding, folded(net, bfloat16=not native)(images).embedding)


class NoCopy(nn.Module):
    """A model of which no copy can be made."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def __deepcopy__(self, memo):
        raise TypeError("not to be copied")

    def forward(self, x):
        return self.conv(x).mean((2, 3))


def test_what_cannot_be_copied_or_is_not_float32_runs_as_it_is(net, images):
    model = NoCopy()
    assert torch.equal(fast_forward(model, 32)(images).embedding, model(images))
    wide = copy.deepcopy(net).double()
    with torch.inference_mode():
        expected = wide.represent(images.double())
    for found, part in zip(fast_forward(wide, 32)(images), expected, strict=True):
        assert torch.equal(found, part.float())


def test_exact_is_the_model_itself(net, images):
    with torch.inference_mode():
        expected = net.represent(images)
    assert all(map(torch.equal, exact_forward(net)(images), expected))


@pytest.mark.parametrize("backbone", ["resnet18", "test_resnet"])
def test_kappa_costs_less_than_a_hundredth_of_the_backbones_arithmetic(backbone):
    model = vissl_zoo.create_model("vi_simsiam", backbone=backbone).eval()
    x = torch.randn(2, 3, 224, 224)
    counts = []
    for call in (model, model.represent):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            call(x)
        counts.append(counter.get_total_flops())
    assert counts[0] > 1e8
    assert 0 < counts[1] - counts[0] < 0.01 * counts[0]


def test_a_timm_model_of_another_kind_runs_in_bfloat16():
    model = timm.create_model("test_vit", num_classes=0).eval()
    x = torch.randn(8, 3, 160, 160)
    with torch.inference_mode():
        expected = model(x)
    found = folded(model, bfloat16=True)(x)[0]
    assert np.isfinite(found.numpy()).all()
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 0.03
