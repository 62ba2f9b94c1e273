"""Narrow versions of the registered architectures: every shape of code path, none of the arithmetic."""

import shutil
import warnings
from functools import cache

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo import weights
from vissl_zoo.methods import METHODS
from vissl_zoo.models.zoo import register_method

_NARROW_RESNET = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}
_NARROW = {
    "resnet": _NARROW_RESNET,
    "convnext": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "vit": {"depth": 3, "embed_dim": 24, "num_heads": 2, "img_size": 64},
}


def narrow_args(name):
    """Keyword arguments that make the registered model `name` small."""
    family = next((f for f in _NARROW if f"_{f}" in name), "resnet")
    heads = {"prototypes": 32, "bottleneck_dim": 8} if name.startswith("dino") else {"latent_dim": 16}
    return {**_NARROW[family], **heads}


def narrow_model(name, **kwargs):
    """The registered model `name`, small, in evaluation mode, with batch statistics that are not trivial."""
    torch.manual_seed(0)
    model = vissl_zoo.create_model(name, **{**narrow_args(name), **kwargs})
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def narrow():
    """The factory `narrow_model`."""
    return narrow_model


@pytest.fixture
def images():
    """Images (3, 3, 64, 64)."""
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="narrow_args")
def narrow_args_fixture():
    """The function `narrow_args`."""
    return narrow_args


@cache
def _timm_builds_on_meta():
    """Whether timm's initialisation makes no number of a tensor (before 1.0.21 it does)."""
    try:
        with torch.device("meta"):
            timm.create_model("test_vit")
    except (RuntimeError, NotImplementedError):
        return False
    return True


@pytest.fixture
def meta():
    """Everything the test makes is on the meta device, where that is possible: shapes without numbers."""
    with torch.device("meta" if _timm_builds_on_meta() else "cpu"):
        yield


def _register_anew(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm says that the name was there
        register_method(name, METHODS[name].row.method, METHODS[name].Options().model_args())


@pytest.fixture
def ship(tmp_path):
    """ship(name, export, model_args, tag) puts an export's weights, as they are, into a package that ships them.

    Returns "name.tag", which timm then knows; the names are registered as before when the test is over.
    """
    folder, before, changed = tmp_path / "shipped", weights.FOLDER, set()

    def ship(name, export, model_args, tag="tag", **row):
        folder.mkdir(exist_ok=True)
        weights.FOLDER = folder
        full = f"{name}.{tag}"
        file = shutil.copy(export / "model.safetensors", folder / f"{full}.safetensors")
        cfg = row.pop("pretrained_cfg", {})
        rows = weights.shipped()
        if full not in rows or rows[full].sha256 != weights.sha256_of(file):
            args = (full, f"{full}.safetensors", weights.sha256_of(file), cfg, model_args)
            weights.write_table({**rows, full: weights.ShippedWeights(*args, **row)})
            method = next(m for m in METHODS if name.startswith(f"{m}_"))
            changed.add(method)
            _register_anew(method)
        return full

    yield ship
    weights.FOLDER = before
    for method in changed:
        _register_anew(method)
