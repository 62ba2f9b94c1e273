"""Folders of photos, and tiny backbones."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image


@pytest.fixture
def write_photos():
    """write_photos(folder, count, gray=0): photos of many sizes, the first `gray` of them grayscale."""

    def write_photos(folder, count, gray=0):
        rng = np.random.default_rng(0)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shape = (20 + 3 * i % 50, 70 - 3 * i % 47) + ((3,) if i >= gray else ())
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
        return folder

    return write_photos


@pytest.fixture
def backbone():
    """backbone(name) -> a tiny untrained timm backbone without a classifier."""

    def backbone(name="test_resnet", **arguments):
        torch.manual_seed(0)
        return timm.create_model(name, **{"num_classes": 0, **arguments}).eval()

    return backbone


@pytest.fixture
def kinds():
    """kinds() -> embeddings of images that lie between kinds, and how far."""

    def kinds(images=600, views=4, width=24, count=6, seed=0) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (N, 1 + V, F) of images between their own and another kind, and how far (N,) in [0, 1]."""
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((count, width))
        own, other = rng.integers(count, size=(2, images))
        far = rng.random(images)
        middle = centres[own] + 0.5 * far[:, None] * (centres[other] - centres[own]) + 5
        noise = rng.standard_normal((images, 1 + views, width)) * (0.1 + 0.4 * far[:, None, None])
        return (middle[:, None] + noise).astype(np.float32), far

    return kinds
