"""The central crop is timm's own evaluation transform, pixel for pixel, and nearly so where it is made fast."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from vissl_zoo.inference import central_crop

SHAPES = [(375, 500), (500, 333), (224, 224), (97, 1031), (32, 32), (20, 50), (16, 16)]


def rough(height, width, seed=0):
    """An RGB image with edges and fine detail."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
    mixed = 0.7 * coarse[:height, :width] + 0.3 * rng.integers(0, 256, (height, width, 3))
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def model_of(**config):
    model = torch.nn.Linear(1, 1)
    model.pretrained_cfg = {"input_size": (3, 64, 64), **config}
    return model


MODELS = [
    model_of(crop_pct=0.875, interpolation="bilinear"),
    model_of(crop_pct=0.95, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    model_of(crop_pct=1.0, interpolation="bicubic"),
    model_of(crop_pct=0.9, crop_mode="squash"),
    model_of(crop_pct=1.0, crop_mode="border"),
    torch.nn.Linear(1, 1),
]


@pytest.mark.parametrize("height, width", SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_it_is_timms_transform(model, height, width):
    image = rough(height, width)
    config = timm.data.resolve_model_data_config(model)
    expected = timm.data.create_transform(**config)(image)
    crop = central_crop(model)
    assert crop.crop(image).dtype == np.uint8
    found = crop.normalise(torch.from_numpy(crop.crop(image)).permute(2, 0, 1)[None])[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("height, width", SHAPES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [32, 64])
def test_the_fast_one_shows_the_same(model, height, width, size):
    image, crop = rough(height, width), central_crop(model, size)
    found, expected = (
        np.asarray(x, dtype=int) for x in (crop.crop_fast(image, (height, width)), crop.crop(image))
    )
    assert found.shape == (size, size, 3)
    assert np.abs(found - expected).mean() < 1.6
    if min(height, width) > 2 * size and crop.crop_mode == "center":
        moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, 4, 0, 1, 4))
        shifted = crop.crop_fast(moved, (height, width))
        assert np.abs(shifted - expected).mean() > 2  # the control


def test_an_image_decoded_at_a_fraction_shows_the_same():
    image = rough(90, 120).resize((1600, 1200), Image.Resampling.BICUBIC)
    crop = central_crop(MODELS[0], 96)
    half = image.reduce(2)
    off = crop.crop_fast(half, (1200, 1600)).astype(int) - crop.crop(image)
    assert np.abs(off).mean() < 1


def test_the_size_may_be_another_and_the_rest_is_the_models():
    crop = central_crop(MODELS[1], 32)
    assert (crop.size, crop.short) == (32, 33)
    assert (crop.interpolation, crop.mean) == ("bicubic", (0.5,) * 3)
    assert central_crop(MODELS[1]).size == 64
    assert central_crop(torch.nn.Linear(1, 1)).size == 224
    assert hash(crop) == hash(central_crop(MODELS[1], 32))  # by which features are kept


@pytest.mark.parametrize(
    "height, width, size, pct, box",
    [
        (32, 32, 32, 1.0, (0, 0, 32, 32)),
        (512, 768, 224, 0.875, (32, 160, 448, 448)),
        (768, 512, 224, 0.875, (160, 32, 448, 448)),
    ],
)
def test_the_box_by_hand(height, width, size, pct, box):
    crop = central_crop(model_of(crop_pct=pct), size)
    assert crop.box(height, width) == pytest.approx(box)


@pytest.mark.parametrize("height, width", [(1, 3000), (3000, 1)])
def test_a_line_of_pixels_is_not_resized_whole(monkeypatch, height, width):
    """By timm's own way 1 × 30,000 pixels took 7.5 GB."""
    crop = central_crop(model_of(crop_pct=0.875, interpolation="bicubic"))
    image = rough(height, width)
    monkeypatch.setitem(crop.__dict__, "_transform", None)
    assert crop.crop(image).shape == (64, 64, 3)
