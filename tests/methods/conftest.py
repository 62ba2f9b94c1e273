"""Small models, methods and latents."""

import pytest
import torch

import vissl_zoo
from vissl_zoo.methods import METHODS, create_method

SPHERE = {"latent_dim": 16}
SMALL = {"dino": {"prototypes": 24, "bottleneck_dim": 8}}  # of the others it is SPHERE


@pytest.fixture
def build():
    """A method on a small backbone in float64, the same weights for the same seed."""

    def make(name, backbone="test_resnet", *, seed=0, dtype=torch.float64, kappa_map="softplus", **options):
        torch.manual_seed(seed)
        arguments = {**SMALL.get(name, SPHERE), "kappa_map": kappa_map, "num_classes": 0}
        if "vit" in backbone:
            arguments |= dict(img_size=32, dynamic_img_size=True)
        model = vissl_zoo.create_model(name, backbone=backbone, **arguments)
        if "dino" not in name:
            options = {"hidden": 12, **options}
        return create_method(name, model, **options).to(dtype).train()

    return make


@pytest.fixture
def views():
    """V views of 6 images: standard ones of 32 pixels, then low-resolution ones of 16."""

    def make(standard=2, low=0, dtype=torch.float64, seed=1):
        generator = torch.Generator().manual_seed(seed)
        sizes = [32] * standard + [16] * low
        return [torch.randn(6, 3, s, s, generator=generator, dtype=dtype) for s in sizes]

    return make


def pytest_generate_tests(metafunc):
    if "method_name" in metafunc.fixturenames:
        metafunc.parametrize("method_name", list(METHODS))
