"""Small labelled data sets and a small model."""

import numpy as np
import pytest
import torch

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation


@pytest.fixture
def noise():
    """noise(count, seed=0) -> uint8 (count, 16, 16, 3), no two alike."""

    def noise(count, seed=0):
        return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)

    return noise


@pytest.fixture(scope="session")
def model():
    """An untrained VI-SimSiam on timm's smallest ResNet."""
    torch.manual_seed(0)
    return vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16).eval()


@pytest.fixture
def shapes_evaluation(model, shapes_folder, tmp_path, monkeypatch):
    """shapes_evaluation(**changes): the untrained model on 120 and 40 shapes at 32 px; `changes` replace its parts."""
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))

    def shapes_evaluation(**changes):
        train, test = (open_images(shapes_folder, split=split) for split in ("train", "test"))
        parts = {"model": model, "heads": None, "train": train, "test": test, "image_size": 32, "workers": 1}
        return Evaluation(**{**parts, "output_dir": tmp_path, **changes})

    return shapes_evaluation
