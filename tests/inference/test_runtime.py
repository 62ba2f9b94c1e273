"""OpenVINO says what torch says, is asked where it pays, and leaves everything else to torch without a word."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

import vissl_zoo
from vissl_zoo.data import cache_folder, open_images
from vissl_zoo.inference import embed, forward, runtime
from vissl_zoo.inference.forward import exact_forward, fast_forward, folded
from vissl_zoo.views import ViewPipeline

with runtime._quietly():
    openvino = pytest.importorskip("openvino", reason='pip install -e ".[cpu]"')
MANY = 10**6  # images: enough to convert


@pytest.fixture(autouse=True)
def conversions(monkeypatch, tmp_path):
    """How often a model was converted; the cache is this test's own, and everything is in float32."""
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(forward, "bfloat16_is_native", lambda device: False)
    seen, real = [], openvino.convert_model
    monkeypatch.setattr(openvino, "convert_model", lambda *a, **k: (seen.append(a), real(*a, **k))[1])
    return seen


@pytest.fixture
def images():
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def network(name="test_resnet", seed=0, **arguments):
    torch.manual_seed(seed)
    return vissl_zoo.create_model("vi_simsiam", backbone=name, latent_dim=16, **arguments).eval()


def kept():
    return list((cache_folder() / "openvino").glob("*"))


def error(found, expected):
    """The greatest difference relative to the norm of an image's values."""
    return ((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max()


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("has_kappa", [True, False])
def test_it_equals_float32(images, conversions, name, has_kappa):
    torch.manual_seed(0)
    model = network(name) if has_kappa else timm.create_model(name, num_classes=10).eval()
    expected = exact_forward(model)(images)
    found = fast_forward(model, 64, MANY)(images)
    assert len(conversions) == len(kept()) == 1
    assert error(found.embedding, expected.embedding) < 1e-4
    assert not torch.equal(found.embedding, folded(model, bfloat16=False)(images).embedding)  # the control
    if has_kappa:
        torch.testing.assert_close(found.kappa, expected.kappa, rtol=1e-4, atol=0)
        torch.testing.assert_close(found.uncertainty, expected.uncertainty, rtol=1e-4, atol=0)
    else:
        assert found.kappa is found.uncertainty is None
    assert all(part is None or part.dtype == torch.float32 for part in found)


def test_prototypes_are_asked(images, conversions):
    model = vissl_zoo.create_model("dino", backbone="test_resnet", latent_dim=16).eval()
    expected, found = exact_forward(model)(images), fast_forward(model, 64, MANY)(images)
    assert len(conversions) == 1
    torch.testing.assert_close(found.uncertainty, expected.uncertainty, rtol=1e-4, atol=1e-6)


def test_bfloat16_where_the_hardware_computes_in_it(images, conversions, monkeypatch):
    model = network("resnet18")
    in_float32 = fast_forward(model, 64, MANY)(images).embedding
    monkeypatch.setattr(forward, "bfloat16_is_native", lambda device: True)
    found = fast_forward(model, 64, MANY)(images)
    assert len(conversions) == len(kept()) == 2
    assert error(found.embedding, in_float32) < 0.02
    assert len(found.kappa.unique()) == len(images)  # κ is not rounded to bfloat16


def test_a_model_is_converted_once_and_its_kappa_is_its_own(images, conversions):
    model = network()
    first = fast_forward(model, 64, MANY)(images)
    again = fast_forward(model, 64, MANY)(images)
    assert all(map(torch.equal, first, again))
    with torch.no_grad():
        for parameter in model.kappa_head.parameters():
            parameter.add_(0.1)
    other = fast_forward(model, 64, MANY)(images)
    assert torch.equal(other.embedding, first.embedding)
    assert not torch.equal(other.kappa, first.kappa)
    torch.testing.assert_close(other.kappa, exact_forward(model)(images).kappa, rtol=1e-4, atol=0)
    assert len(conversions) == len(kept()) == 1
    fast_forward(network(seed=1), 64, MANY)
    fast_forward(model, 32, MANY)
    assert len(conversions) == len(kept()) == 3


def test_the_weights_are_those_of_when_it_was_made(images):
    model = network()
    call = fast_forward(model, 64, MANY)
    before = call(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(map(torch.equal, call(images), before))


def test_a_broken_file_is_made_anew(images, conversions):
    model = network()
    first = fast_forward(model, 64, MANY)(images)
    kept()[0].write_bytes(b"broken")
    assert torch.equal(fast_forward(model, 64, MANY)(images).embedding, first.embedding)
    assert len(conversions) == 2
    assert kept()[0].stat().st_size > 1000


def test_only_the_newest_are_kept(monkeypatch):
    monkeypatch.setattr(runtime, "KEPT", 2)
    for seed in range(3):
        fast_forward(network(seed=seed), 64, MANY)
    assert len(kept()) == 2


def test_few_images_do_not_pay_for_a_conversion(images, conversions):
    model = network()
    some = runtime.CONVERT_PIXELS // 64**2 - 1
    plain = folded(model, bfloat16=False)(images).embedding
    assert torch.equal(fast_forward(model, 64, some)(images).embedding, plain)
    assert not conversions
    converted = fast_forward(model, 64, some + 1)(images).embedding
    assert torch.equal(fast_forward(model, 64, 1)(images).embedding, converted)  # kept already
    assert len(conversions) == 1


class CountsItsImages(nn.Module):
    """A trace takes their number for a constant."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3)) * float(len(x))


class Refuses(CountsItsImages):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not to be traced")
        return super().forward(x)


class HasItsOwnKappa(CountsItsImages):
    """`represent` is not ours."""

    def __init__(self):
        super().__init__()
        self.kappa_head = nn.Linear(4, 1)

    def represent(self, x):
        return vissl_zoo.Representation(self(x), torch.ones(len(x)), torch.zeros(len(x)))


@pytest.mark.parametrize("kind, tries", [(CountsItsImages, 1), (Refuses, 1), (HasItsOwnKappa, 0)])
def test_what_does_not_convert_is_left_to_torch(images, conversions, kind, tries):
    model = kind().eval()
    for _ in range(2):
        assert torch.equal(
            fast_forward(model, 64, MANY)(images).embedding, folded(model, bfloat16=False)(images).embedding
        )
    assert not kept()
    assert len(conversions) == tries  # once: a model that has refused is not asked again


def test_without_the_package_torch_does_it(images, conversions, monkeypatch):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    model = network()
    plain = folded(model, bfloat16=False)(images).embedding
    assert torch.equal(fast_forward(model, 64, MANY)(images).embedding, plain)
    assert not conversions


def test_it_takes_as_many_threads_as_torch():
    call = runtime.openvino_trunk(network(), "name", 64, MANY * 64**2, False)
    assert call.args[0].get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()


def test_embed_asks_for_it_by_the_number_of_images_and_exact_never(shapes_folder, conversions, monkeypatch):
    table, model = open_images(shapes_folder, split="test"), network()
    monkeypatch.setattr(runtime, "CONVERT_PIXELS", len(table) * 64**2)
    list(embed(model, table, 64, exact=True))
    list(embed(model, table, 64, rows=range(len(table) - 1), views=ViewPipeline(64)))
    assert not conversions
    list(embed(model, table, 64))
    assert len(conversions) == 1


SILENT = """
import logging, sys, torch, vissl_zoo
from vissl_zoo.inference.forward import fast_forward
class Refuses(torch.nn.Conv2d):
    def forward(self, x):
        assert not torch.jit.is_tracing(), "not to be traced"
        return super().forward(x).mean((2, 3))
x = torch.zeros(2, 3, 64, 64)
for model in (vissl_zoo.create_model("vi_simsiam", backbone="test_resnet").eval(), Refuses(3, 4, 3).eval()):
    fast_forward(model, 64, 10**6)(x)
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__.endswith("telemetry_stub"), "word of this call is sent"
assert "openvino_telemetry" not in sys.modules
assert not logging.getLogger().handlers
assert logging.root.manager.disable == 0 and logging.root.level == logging.WARNING
"""


def test_nothing_is_shown_and_nothing_sent(tmp_path):
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert len(kept()) == 1
