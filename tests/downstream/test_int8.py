"""Dynamic int8: the ViT's linear layers, with κ's head left in float."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

import vissl_zoo

quantization = pytest.importorskip("torch.ao.quantization")


@pytest.fixture(autouse=True)
def _needs_an_engine():
    if set(torch.backends.quantized.supported_engines) <= {"none"}:
        pytest.skip("this torch has no int8 engine")


def quantized(model, keep=("kappa_head",)):
    """A copy of `model` with int8 linear layers, but for those under the names in `keep`."""
    how = quantization.per_channel_dynamic_qconfig
    layers = {
        name: how
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(keep)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantization.quantize_dynamic(model, layers)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam_vit_small_patch16_224", img_size=64, depth=3, latent_dim=64)
    nn.init.normal_(model.kappa_head.mlp.fc2.weight, std=4)
    nn.init.constant_(model.kappa_head.mlp.fc2.bias, 30)
    return model.eval()


def test_embedding_and_kappa_survive(vit):
    images = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = vit.represent(images), quantized(vit).represent(images)
    cosine = cosine_similarity(found.embedding, expected.embedding)
    assert cosine.min() >= 0.99
    assert cosine.max() < 1 - 1e-6  # it was quantised
    assert found.kappa.dtype == torch.float32
    assert torch.equal(found.kappa, vit.kappa_head(found.embedding))  # the same float head
    assert (found.uncertainty - expected.uncertainty).abs().max() < 0.05


def test_an_int8_kappa_head_is_refused(vit):
    """It computes in full precision whatever surrounds it: κ in a few hundred steps would be full of ties."""
    with pytest.raises(AttributeError):
        quantized(vit, keep=("none",)).represent(torch.zeros(1, 3, 64, 64))


def test_the_kappa_head_stays_in_float(vit):
    small = quantized(vit)
    kinds = {name: type(module).__module__ for name, module in small.named_modules() if name.endswith("fc1")}
    assert kinds.pop("kappa_head.mlp.fc1") == "torch.nn.modules.linear"
    assert len(kinds) == 3
    assert all("quantized" in kind for kind in kinds.values())
    linear = sum(m.weight.numel() for n, m in vit.named_modules() if isinstance(m, nn.Linear))
    head = sum(p.numel() for p in vit.kappa_head.parameters())
    assert head < 0.03 * linear  # nothing to win there


def test_a_resnet_has_no_layer_for_it(small, images):
    """Its only linear layers are κ's: dynamic quantisation leaves such a model as it is."""
    model = small("resnet")
    with torch.no_grad():
        assert torch.equal(quantized(model)(images), model(images))
