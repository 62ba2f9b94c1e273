"""What the downstream tests share: small exports with weights that are not trivial, and images."""

import importlib.util
import sys

import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.hub import export_model

RESNET = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "latent_dim": 64}
VIT = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": 32, "patch_size": 8, "latent_dim": 64}
SMALL = {
    "resnet": ("vi_simsiam_resnet18", RESNET),
    "resnet_exp": ("vi_simsiam_resnet18", {**RESNET, "kappa_map": "exp"}),
    "vit": ("vi_simsiam_vit_small_patch16_224", VIT),
    "vit_exp": ("vi_simsiam_vit_small_patch16_224", {**VIT, "kappa_map": "exp"}),
    "dino": ("dino_resnet18", {**RESNET, "latent_dim": 8, "prototypes": 16}),
    "dino_vit": ("dino_vit_small_patch16_224", {**VIT, "latent_dim": 8, "prototypes": 16}),
}


def build_small(kind, **kwargs):
    """A small model of the zoo in evaluation mode, whose κ and batch statistics differ from where they start."""
    name, args = SMALL[kind]
    torch.manual_seed(0)
    model = vissl_zoo.create_model(name, **args, **kwargs).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    if model.kappa_head is not None:
        torch.nn.init.normal_(model.kappa_head.mlp.fc2.weight, std=12 if "exp" not in kind else 2)
        torch.nn.init.constant_(model.kappa_head.mlp.fc2.bias, 100 if "exp" not in kind else 0)
    return model


def noise(count):
    """Images (count, 3, 32, 32), from faint to strong, so that κ is not the same for all."""
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))
    images[:, :, :16] += 1
    return images * torch.linspace(0.2, 3, count)[:, None, None, None]


@pytest.fixture
def batches():
    """Images in batches of 1, 2 and 7."""
    return [noise(1), noise(2), noise(7)]


@pytest.fixture(scope="session")
def small():
    """The function `build_small`."""
    return build_small


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """exports(kind): the export folder of a small model; read it, change nothing."""
    root, done = tmp_path_factory.mktemp("exports"), {}

    def export(kind):
        if kind not in done:
            done[kind] = export_model(build_small(kind), root / kind)
        return done[kind]

    return export


@pytest.fixture(scope="session")
def load(exports):
    """load(kind, **kwargs): a small model read from its export by timm."""

    def load(kind, **kwargs):
        return timm.create_model(f"local-dir:{exports(kind)}", pretrained=True, **kwargs).eval()

    return load


@pytest.fixture(scope="session")
def example(root):
    """example(name): a script of examples/ as a module."""

    def example(name):
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, root / "examples" / f"{name}.py")
            sys.modules[name] = importlib.util.module_from_spec(
                spec
            )  # its dataclasses look themselves up there
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    return example


@pytest.fixture
def images():
    """Images (5, 3, 32, 32)."""
    return noise(5)
