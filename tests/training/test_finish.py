"""What a model is said to have been trained on, which decides what every command shows it."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.inference import central_crop
from vissl_zoo.methods import RECIPES
from vissl_zoo.training import build_model
from vissl_zoo.training.finish import describe_input

RECIPE = dataclasses.replace(RECIPES["demo"].recipe, image_size=32)


@pytest.fixture
def folder(tmp_path):
    """folder(width, height) -> the table of a folder whose first image is broken and whose second is so large."""

    def folder(*size):
        (tmp_path / "0.png").write_bytes(b"no image")
        Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(tmp_path / "1.png")
        return open_images(str(tmp_path))

    return folder


@pytest.mark.parametrize(
    "size, crop_pct", [((32, 32), 1.0), ((48, 30), 1.0), ((49, 30), 0.875), ((640, 480), 0.875)]
)
def test_small_images_are_taken_whole_and_of_photos_the_centre(folder, size, crop_pct):
    model = build_model(RECIPE).eval()
    describe_input(model, RECIPE, folder(*size))
    crop = central_crop(model)
    assert (crop.size, crop.crop_pct, crop.interpolation) == (32, crop_pct, "bilinear")
    features = model.forward_features(torch.zeros(1, 3, 32, 32))
    assert model.pretrained_cfg["pool_size"] == features.shape[-2:]


def test_a_stream_is_of_photos():
    model = build_model(RECIPE)
    describe_input(model, RECIPE, None)
    assert central_crop(model).crop_pct == 0.875


def test_images_that_nobody_can_read(folder, tmp_path):
    table = folder(8, 8)
    (tmp_path / "1.png").write_bytes(b"no image either")
    with pytest.raises(UserError, match="no image can be read"):
        describe_input(build_model(RECIPE), RECIPE, table)
