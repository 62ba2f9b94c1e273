"""What an evaluation looks at: the clean central crop, in order, with the model left as it was."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.functional import center_crop

from vissl_zoo.data import open_images, open_store
from vissl_zoo.evaluation.features import central_crop, extract
from vissl_zoo.models import Representation
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD

BILINEAR = v2.InterpolationMode.BILINEAR


def smooth(height, width, count=2, seed=0):
    """uint8 (count, 3, height, width) that no resampling can alias."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (
        v2.functional.resize(255 * coarse, [height, width], v2.InterpolationMode.BICUBIC).clamp(0, 255).byte()
    )


def rough(height, width, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def sizes(images):
    return torch.tensor([images.shape[2:]] * len(images))


def normalised(pixels):
    return v2.functional.normalize(pixels.float() / 255, IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize("height, width", [(512, 512), (512, 768), (1024, 512)])
def test_a_photo_is_cropped_as_torchvision_does(height, width):
    """Resize the short side to 256 and take the central 224; at the crop's border a resize looks beyond it."""
    images = rough(height, width)
    found = central_crop(images, sizes(images), 224)
    short = v2.functional.resize(images.float(), 256, BILINEAR, antialias=True)
    expected = normalised(center_crop(short, [224, 224]))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-4, rtol=0)
    assert (found - expected).abs().max() < 1.5


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (40, 48, 32), (48, 40, 32), (30, 20, 32)])
def test_a_small_image_is_taken_whole(height, width, size):
    images = rough(height, width)
    square = center_crop(images.float(), [min(height, width)] * 2)
    expected = normalised(v2.functional.resize(square, [size, size], BILINEAR, antialias=True))
    torch.testing.assert_close(central_crop(images, sizes(images), size), expected, atol=2e-4, rtol=0)


def test_an_image_of_the_crops_size_is_only_normalised():
    images = rough(32, 32)
    torch.testing.assert_close(central_crop(images, sizes(images), 32), normalised(images), atol=1e-6, rtol=0)


@pytest.mark.parametrize("height, width", [(200, 400), (600, 250), (90, 100)])
def test_a_squashed_canvas_gets_its_aspect_back(height, width):
    images, size = smooth(height, width), 64
    native = central_crop(images, sizes(images), size)
    canvas = v2.functional.resize(images.float(), [96, 96], BILINEAR, antialias=True).round().byte()
    restored = central_crop(canvas, sizes(images), size)
    assert (restored - native).abs().mean() < 0.03
    if abs(height - width) > 50:  # the control: taken for a square it shows something else
        assert (central_crop(canvas, sizes(canvas), size) - native).abs().mean() > 0.1


def test_images_of_a_batch_do_not_mix():
    images = rough(40, 40, count=3)
    true = torch.tensor([[40, 40], [400, 100], [30, 60]])
    together = central_crop(images, true, 24)
    for i in range(3):
        alone = central_crop(images[i : i + 1], true[i : i + 1], 24)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


class Brightness(nn.Module):
    """Says how bright an image is, in three ways; refuses to be asked in training mode."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.kappa_head = nn.Identity()  # it has a κ to tell
        self.weight = nn.Parameter(torch.ones(1, dtype=dtype))

    def represent(self, x):
        assert not self.training
        assert x.dtype == self.weight.dtype
        mean = x.mean((1, 2, 3))
        return Representation(mean[:, None].repeat(1, 2), mean.exp(), torch.sigmoid(-mean))


@pytest.fixture
def store(write_split, tmp_path):
    levels = np.random.default_rng(0).permutation(23) * 10
    images = [np.full((16, 16, 3), level, np.uint8) for level in levels]
    table = open_images(write_split(tmp_path / "train.parquet", images))
    return levels, open_store(table, 16, progress=False)


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_features_are_in_the_stores_order(store, batch_size, dtype):
    levels, images = store
    found = extract(Brightness(dtype), images, 16, batch_size=batch_size)
    assert found.embedding.shape == (23, 2)
    assert all(part.dtype == np.float32 for part in found[1:])
    assert np.array_equal(found.rows, images.rows)
    assert np.array_equal(np.argsort(found.kappa), np.argsort(levels))
    assert np.array_equal(np.argsort(-found.uncertainty), np.argsort(levels))
    mean, std = (
        np.mean([m / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]),
        np.array(IMAGENET_STD),
    )
    expected = levels / 255 * np.mean(1 / std) - mean
    assert np.allclose(found.embedding[:, 0], expected, atol=0.05 if dtype == torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_left_alone(store, model, training):
    model.train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    extract(model, store[1], 16)
    assert model.training == training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()


def test_a_model_sees_images_normalised_as_it_was_trained(tmp_path):
    """By its own mean and deviation, on every way to features: the zoo's own have ImageNet's, ViTs of timm others."""
    import timm
    from PIL import Image

    from vissl_zoo.evaluation.represent import extract_rows
    from vissl_zoo.photos.engine import score_images

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.5)}
    images = rough(32, 32, count=4)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    x = v2.functional.normalize(images.float() / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.5))
    with torch.inference_mode():
        expected = model(x).numpy()
    table = open_images(str(tmp_path))
    store = open_store(table, 32, workers=0, progress=False)
    ways = {
        "store": extract(model, store, 32).embedding,
        "rows": extract_rows(model, table, 32, np.arange(4), exact=True).embedding,
        "scores": next(score_images(model, table, 32, exact=True)).embedding,
    }
    for way, found in ways.items():
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5, err_msg=way)
