"""`represent` beside timm's own calls: what it returns, when it exists, and that nothing else changes."""

import copy
import inspect
import pickle

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.methods import METHODS
from vissl_zoo.models import entrypoints

FAMILIES = ("resnet18", "resnet18_cifar", "resnet50", "convnext_tiny", "vit_small_patch16_224")
NAMES = [f"{method}_{family}" for method in METHODS for family in FAMILIES]
ONE_EACH = ["vi_simsiam_resnet18", "simsiam_convnext_tiny", "dino_vit_small_patch16_224"]


@pytest.mark.parametrize("name", NAMES)
def test_represent(name, narrow, images):
    model = narrow(name)
    r = model.represent(images)
    assert torch.equal(r.embedding, model(images))
    assert r.kappa.shape == r.uncertainty.shape == (len(images),)
    assert (r.kappa > 0).all()
    assert ((r.uncertainty >= 0) & (r.uncertainty <= 1)).all()
    assert torch.equal(r.kappa, model.kappa_head(r.embedding))
    if name.startswith("dino"):
        assert torch.equal(r.uncertainty, model.prototype_head.uncertainty(r.embedding))
    else:
        torch.testing.assert_close(r.uncertainty, 15 / (15 + r.kappa))


@pytest.mark.parametrize("name", ONE_EACH)
def test_precision_of_kappa(name, narrow, images):
    model = narrow(name)
    with torch.autocast("cpu", torch.bfloat16):
        embedding, kappa, uncertainty = model.represent(images)
    assert kappa.dtype == uncertainty.dtype == torch.float32
    assert torch.equal(kappa, model.kappa_head(embedding.float()))
    r = model.double().represent(images.double())
    assert r.kappa.dtype == torch.float64


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_head_beside_a_classifier(name, narrow, images):
    model = narrow(name, num_classes=10, kappa_head=True)
    assert model(images).shape == (3, 10)
    r = model.represent(images)
    assert torch.equal(r.embedding, model.forward_head(model.forward_features(images), pre_logits=True))
    torch.testing.assert_close(model.get_classifier()(r.embedding), model(images))


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({}, True),
        ({"num_classes": 0}, True),
        ({"num_classes": 10}, False),
        ({"num_classes": 10, "kappa_head": True}, True),
        ({"num_classes": 0, "kappa_head": False}, False),
        ({"num_classes": 0, "global_pool": ""}, False),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_when_the_head_exists(method, kwargs, expected, meta):
    model = timm.create_model(f"{method}_resnet18", **kwargs)
    assert (model.kappa_head is not None) == expected
    assert (model.prototype_head is not None) == (expected and method == "dino")
    if not expected:
        with pytest.raises(RuntimeError, match=r"no κ head.*kappa_head=True"):
            model.represent(torch.empty(1, 3, 64, 64))


def test_a_head_needs_pooling(meta):
    with pytest.raises(ValueError, match="global_pool"):
        timm.create_model("vi_simsiam_resnet18", kappa_head=True, global_pool="")


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_leaves_no_parameter_without_gradient(name, narrow, images):
    model = narrow(name, num_classes=10).train()
    model(images).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ONE_EACH)
@pytest.mark.parametrize(
    "start, args, kwargs, expected",
    [
        ({}, (10,), {}, False),
        ({}, (0,), {}, True),
        ({}, (10,), {"kappa_head": True}, True),
        ({}, (0, ""), {}, False),
        ({"num_classes": 10}, (0,), {}, False),
        ({"num_classes": 10}, (0,), {"kappa_head": True}, False),
        ({"num_classes": 10, "kappa_head": True}, (0,), {}, True),
        ({"num_classes": 10, "kappa_head": True}, (5,), {}, False),
    ],
)
def test_reset_classifier(name, start, args, kwargs, expected, narrow, meta):
    model = narrow(name, **start)
    model.reset_classifier(*args, **kwargs)
    assert model.num_classes == args[0]
    assert (model.kappa_head is not None) == expected
    assert (model.prototype_head is not None) == (expected and name.startswith("dino"))
    assert any("kappa_head" in n for n in model.state_dict()) == expected


def test_reset_classifier_keeps_the_pooling(meta):
    if inspect.signature(timm.models.ConvNeXt.reset_classifier).parameters["global_pool"].default is not None:
        pytest.skip("this timm resets the pooling")
    model = timm.create_model("vi_simsiam", backbone="test_convnext", global_pool="max")
    model.reset_classifier(7)
    assert model.head.global_pool.pool_type == "max"
    model.reset_classifier(0, "avg")
    assert model.head.global_pool.pool_type == "avg"


def test_a_pruned_trunk_has_no_head(narrow):
    """As a feature extractor the head would be a parameter that no loss reaches."""
    model = narrow("vi_simsiam_resnet18")
    model.prune_intermediate_layers([2])
    assert model.kappa_head is None


@pytest.mark.parametrize("name", [*ONE_EACH, "simsiam_resnet18_cifar"])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_equal(name, clone, narrow, images):
    model = narrow(name)
    other = clone(model)
    assert type(other) is type(model)
    for a, b in zip(model.represent(images), other.represent(images), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        other.kappa_head.mlp.fc2.bias.add_(1)
    assert not torch.equal(model.represent(images).kappa, other.represent(images).kappa)


@pytest.mark.parametrize("name", ["vi_simsiam_resnet18", "dino_vit_small_patch16_224"])
@pytest.mark.parametrize("num_classes", [0, 10])
def test_forward_in_every_runtime(name, num_classes, narrow, images):
    model = narrow(name, num_classes=num_classes)
    expected = model(images)
    torch.testing.assert_close(torch.jit.script(model)(images), expected)
    torch.testing.assert_close(torch.jit.trace(model, images)(images), expected)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(images), expected)
    torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), expected)


@pytest.mark.parametrize("name", ["vi_simsiam_resnet18", "dino_resnet18"])
def test_represent_compiles(name, narrow, images):
    model = narrow(name)
    compiled = torch.compile(model.represent, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(images), model.represent(images), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_add_kappa_head(backbone):
    model = timm.create_model(backbone).double().eval()
    x = torch.randn(2, *model.pretrained_cfg["input_size"], dtype=torch.float64)
    before, keys, timm_class = model(x), set(model.state_dict()), type(model)
    assert vissl_zoo.add_kappa_head(model, latent_dim=64, kappa_map="exp") is model
    assert torch.equal(model(x), before)
    assert isinstance(model, timm_class)
    assert {k for k in model.state_dict() if not k.startswith("kappa_head.")} == keys
    assert {p.dtype for p in model.kappa_head.parameters()} == {torch.float64}
    assert not model.kappa_head.training
    r = model.represent(x)
    assert r.embedding.shape == (2, model.head_hidden_size)
    torch.testing.assert_close(r.uncertainty, 63 / (63 + r.kappa))
    assert torch.equal(copy.deepcopy(model).represent(x).kappa, r.kappa)


def test_add_kappa_head_refuses(meta):
    with pytest.raises(TypeError, match="FeatureListNet"):
        vissl_zoo.add_kappa_head(timm.create_model("test_resnet", features_only=True))
    model = vissl_zoo.create_model("simsiam", backbone="test_resnet", num_classes=3)
    vissl_zoo.add_kappa_head(model)  # it had none, having a classifier
    with pytest.raises(ValueError, match="already"):
        vissl_zoo.add_kappa_head(model)


def test_every_entrypoint_is_exercised_here():
    assert {n for n in entrypoints() if n not in (*METHODS, "kappa")} == set(NAMES)
