"""Fast ways to run a model agree with plain float32, and what cannot be made fast stays plain."""

import numpy as np
import pytest
import timm
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vissl_zoo
from vissl_zoo.evaluation import fast_forward
from vissl_zoo.evaluation.fast_forward import (
    BFLOAT16,
    FOLDED,
    PLAIN,
    Forward,
    choose_forward,
    fold_batch_norm,
    folded,
)
from vissl_zoo.speed import Trial


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


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    monkeypatch.setattr(fast_forward, "_choices", {})


@pytest.mark.parametrize("bfloat16, tolerance", [(False, 1e-5), (True, 0.02)])
def test_a_folded_copy_agrees_and_the_model_is_left_alone(net, images, bfloat16, tolerance):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.inference_mode():
        embedding, kappa, uncertainty = net.represent(images)
    found = folded(net, bfloat16=bfloat16).call(images)
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
    embedding, kappa, uncertainty = folded(model).call(images)
    torch.testing.assert_close(embedding, model(images))
    assert kappa is uncertainty is None


@pytest.mark.parametrize("device, tried", [("cpu", fast_forward.TRIAL_IMAGES), ("meta", 32)])
def test_an_accelerator_tries_the_whole_batch(net, images, monkeypatch, device, tried):
    """And bfloat16 without asking whether matrices alone are faster in it."""
    seen, asked = [], []

    def represent(model, x):
        seen.append(len(x))
        return torch.ones(len(x), 4), None, None

    def run_trial(ways, **options):
        asked.extend(ways)
        for way in ways.values():
            way()
        return Trial(FOLDED, {}, {})

    way = lambda model, bfloat16=False: Forward(  # noqa: E731
        BFLOAT16 if bfloat16 else FOLDED, lambda x: represent(model, x)
    )
    for name, stand_in in {"_represent": represent, "folded": way, "run_trial": run_trial}.items():
        monkeypatch.setattr(fast_forward, name, stand_in)
    monkeypatch.setattr(fast_forward, "_bfloat16_pays", lambda: device == "cpu")
    assert choose_forward(net, images[:32].to(device), 1000).name == FOLDED
    assert set(seen) == {tried}
    assert asked == [PLAIN, FOLDED, BFLOAT16]


def test_the_trial_decides_once_for_a_model_and_a_size(net, images, monkeypatch):
    asked = []

    def run_trial(ways, **options):
        asked.append(list(ways))
        for way in ways.values():
            way()
        return Trial(FOLDED if FOLDED in ways else "bfloat16", {}, {})

    monkeypatch.setattr(fast_forward, "run_trial", run_trial)
    assert choose_forward(net, images, 1000).name == FOLDED
    assert choose_forward(net, images, 1000).name == FOLDED
    assert sum(FOLDED in ways for ways in asked) == 1
    assert [PLAIN, FOLDED, BFLOAT16] in asked
    choose_forward(net, images[..., :24, :24], 1000)
    assert sum(FOLDED in ways for ways in asked) == 2


def test_a_way_that_disagrees_is_out(net, images, monkeypatch):
    monkeypatch.setattr(fast_forward, "EMBEDDING_TOLERANCE", 0.0)
    found = []
    real = fast_forward.run_trial
    monkeypatch.setattr(
        fast_forward, "run_trial", lambda ways, **o: found.append(real(ways, **o)) or found[-1]
    )
    assert choose_forward(net, images, 1000).name == PLAIN
    assert "differ" in found[-1].failures[FOLDED]


@pytest.mark.parametrize(
    "to_come, exact, dtype",
    [(10, False, torch.float32), (9999, True, torch.float32), (9999, False, torch.float64)],
)
def test_plain_without_a_trial(net, images, monkeypatch, to_come, exact, dtype):
    monkeypatch.setattr(fast_forward, "run_trial", lambda *a, **k: pytest.fail("a trial"))
    forward = choose_forward(net.to(dtype), images, to_come, exact=exact)
    assert forward.name == PLAIN
    with torch.inference_mode():
        expected = net.represent(images.to(dtype))
    for a, b in zip(forward.call(images), expected, strict=True):
        assert torch.equal(a, b.float())
    net.float()


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
    found = folded(model, bfloat16=True).call(x)[0]
    assert np.isfinite(found.numpy()).all()
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 0.03


def test_what_was_chosen_for_other_weights_is_tried_on_these(net, images, monkeypatch):
    monkeypatch.setattr(fast_forward, "run_trial", lambda ways, **o: Trial(list(ways)[-1], {}, {}))
    monkeypatch.setattr(fast_forward, "_bfloat16_pays", lambda: True)
    assert choose_forward(net, images, 1000).name == BFLOAT16
    monkeypatch.setattr(fast_forward, "_bfloat16_pays", lambda: False)  # a busy moment
    assert choose_forward(net, images, 1000).name == BFLOAT16
    monkeypatch.setattr(fast_forward, "EMBEDDING_TOLERANCE", 1e-9)
    assert choose_forward(net, images, 1000).name == PLAIN
