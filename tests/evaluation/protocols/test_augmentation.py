"""κ under augmentation, with a model whose κ is known: the brightness or the detail of what it is shown."""

import numpy as np
import pytest
import torch
from torch import nn

from vissl_zoo.data import open_images
from vissl_zoo.evaluation.image_views import sample_images
from vissl_zoo.evaluation.protocols.augmentation import PAPER, Options, evaluate, pipelines
from vissl_zoo.inference import RowViews
from vissl_zoo.models import Representation
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD

NAMES = ("normal", "blur", "color_jitter", "grayscale", "random_crop")


class Detail(nn.Module):
    """κ is the mean brightness plus the mean difference of neighbours and of the colour channels."""

    def __init__(self, detail=0.0, colour=0.0, crop_pct=1.0):
        super().__init__()
        self.pretrained_cfg = {"crop_pct": crop_pct, "interpolation": "bilinear"}
        self.weight = nn.Parameter(torch.tensor([detail, colour]))
        self.kappa_head = nn.Identity()

    def represent(self, x):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        pixels = x * std + mean
        kappa = pixels.mean((1, 2, 3)) + self.weight[0] * pixels.diff(dim=3).abs().mean((1, 2, 3))
        kappa = kappa + self.weight[1] * (pixels[:, 0] - pixels[:, 2]).abs().mean((1, 2))
        return Representation(kappa[:, None].repeat(1, 2), kappa, torch.sigmoid(-kappa))


def measured(evaluation, **options) -> dict:
    return {k.removeprefix("augmentation."): v for k, v in evaluate(evaluation, Options(**options))}


def test_crops_are_those_of_the_original(shapes_evaluation, tmp_path):
    """The reference cuts the boxes out of the decoded images and takes their mean."""
    evaluation = shapes_evaluation(model=Detail(), seed=5)
    found = measured(evaluation, images=12, draws=3)
    chosen = sample_images(evaluation, 12)
    originals = [np.asarray(evaluation.test.read(int(row))) / 255 for row in chosen]
    pipeline = pipelines(evaluation, 3)["random_crop"]
    boxes = pipeline.boxes(RowViews(pipeline).draws(chosen), torch.full((12, 2), 32))
    means = np.array(
        [
            [
                image[top : top + height, left : left + width].mean()
                for top, left, height, width in view.tolist()
            ]
            for image, view in zip(originals, boxes.transpose(0, 1), strict=True)
        ]
    )
    area = boxes[..., 2:].prod(-1) / 32**2
    assert 0.03 < area.min() < 0.3 < area.max() <= 1
    assert found["images"] == 12
    assert found["normal"]["mean"] == pytest.approx(np.mean([image.mean() for image in originals]), abs=1e-5)
    assert found["normal"]["std"] == pytest.approx(np.std([image.mean() for image in originals]), abs=1e-5)
    assert found["random_crop"]["mean"] == pytest.approx(means.mean(), abs=5e-3)
    assert found["random_crop"]["std"] == pytest.approx(means.std(), abs=5e-3)
    assert [name for name, _ in evaluation.figures] == ["augmentation.png"]
    assert (tmp_path / "augmentation.png").stat().st_size > 1000


def test_each_augmentation_does_what_its_name_says(shapes_evaluation, write_split, noise, tmp_path):
    table = open_images(write_split(tmp_path / "noise" / "train.parquet", list(noise(6))))
    parts = {"test": table, "train": None, "image_size": 16}
    detail = measured(shapes_evaluation(model=Detail(detail=10.0), **parts), draws=2)
    assert detail["blur"]["mean"] < 0.9 * detail["normal"]["mean"]
    colour = measured(shapes_evaluation(model=Detail(colour=10.0), **parts), draws=2)
    gray = (noise(6) / 255 * [0.2989, 0.587, 0.114]).sum(-1)
    assert colour["grayscale"]["mean"] == pytest.approx(gray.mean(), abs=1e-3)
    assert colour["normal"]["mean"] > 3 * colour["grayscale"]["mean"]
    assert colour["color_jitter"]["mean"] != pytest.approx(colour["normal"]["mean"], rel=1e-3)
    # Nothing but the augmentation is done: a blur keeps the brightness, grayscale makes of gray what it was.
    brightness = measured(shapes_evaluation(model=Detail(), **parts), draws=2)
    assert brightness["blur"]["mean"] == pytest.approx(brightness["normal"]["mean"], rel=0.02)


def test_names_are_those_of_the_paper_and_the_seed_decides(shapes_evaluation):
    first, again, other = (measured(shapes_evaluation(seed=s), images=6, draws=2) for s in (0, 0, 1))
    assert first == again
    assert first["random_crop"] != other["random_crop"]
    assert set(first) == {"images", *NAMES}
    assert set(PAPER) == {f"augmentation.{name}.{m}" for name in NAMES for m in ("mean", "std")}


def test_one_image_and_one_draw(shapes_evaluation):
    found = measured(shapes_evaluation(), images=1, draws=1)
    assert all(found[name]["std"] == 0 for name in NAMES)


def test_augmentations_look_at_what_the_clean_crop_shows(shapes_evaluation, write_split, tmp_path):
    """Photos with a dark frame just outside of the central crop, 0.875 of the short side."""
    photo = np.full((64, 96, 3), 50, np.uint8)
    photo[2:62, 18:78] = 200
    table = open_images(write_split(tmp_path / "framed" / "train.parquet", [photo] * 3))
    found = measured(
        shapes_evaluation(model=Detail(crop_pct=0.875), test=table, train=None, image_size=16), draws=2
    )
    assert found["normal"]["mean"] == pytest.approx(200 / 255, abs=0.03)
    for name in ("blur", "grayscale"):
        assert found[name]["mean"] == pytest.approx(found["normal"]["mean"], abs=5e-3)
    assert found["random_crop"]["mean"] < 0.75
