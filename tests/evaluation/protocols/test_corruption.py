"""Spearman with the level against SciPy, AUROC between two data sets against scikit-learn."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Undefined
from vissl_zoo.evaluation.protocols import corruption
from vissl_zoo.evaluation.protocols.corruption import (
    CORRUPTIONS,
    LEVELS,
    CorruptedViews,
    Options,
    correlations,
    evaluate,
)
from vissl_zoo.inference import CentralCrop


@pytest.mark.parametrize("digits", [8, 1])  # 1: many ties
def test_correlations_are_scipys(digits):
    uncertainty = np.random.default_rng(0).uniform(size=(5, 30)).round(digits)
    uncertainty[:, 4] = 0.5  # never changes: no correlation of its own
    levels = np.repeat(np.arange(5), 30)
    changing = [i for i in range(30) if np.ptp(uncertainty[:, i]) > 0]
    own = [spearmanr(uncertainty[:, i], np.arange(5)).statistic for i in changing]
    assert len(changing) == 29
    assert correlations(uncertainty) == {
        "spearman": pytest.approx(spearmanr(uncertainty.ravel(), levels).statistic, abs=1e-9),
        "spearman_per_image": pytest.approx(np.mean(own), abs=1e-9),
    }


def test_an_image_that_differs_from_the_others_weakens_only_the_overall_correlation():
    rising = np.arange(5)[:, None] * 0.1 + np.array([0.0, 10.0])
    found = correlations(rising)
    assert found["spearman_per_image"] == pytest.approx(1)
    assert 0 < found["spearman"] < 0.6
    assert correlations(-rising)["spearman_per_image"] == pytest.approx(-1)


def test_what_never_changes_is_undefined():
    for count in (1, 7):
        found = correlations(np.full((5, count), 0.25, np.float32))
        assert all(isinstance(value, Undefined) for value in found.values())
    flat = np.broadcast_to(np.array([0.1, 0.2]), (5, 2))  # images differ, levels do not
    assert correlations(flat)["spearman"] == pytest.approx(0)
    assert isinstance(correlations(flat)["spearman_per_image"], Undefined)


def test_every_corruption_is_measured_without_labels(shapes_evaluation, tmp_path):
    evaluation = shapes_evaluation(train=None)
    evaluation.test.labels = None
    first, again = (dict(evaluate(evaluation, Options(images=7))) for _ in range(2))
    assert first == again
    assert first["corruption.images"] == 7
    assert set(first) == {"corruption.images", *(f"corruption.{kind}" for kind in CORRUPTIONS)}
    for kind in CORRUPTIONS:
        assert all(-1 <= value <= 1 for value in first[f"corruption.{kind}"].values())
    assert evaluation.figures[0][0] == "corruption.png"
    assert (tmp_path / "corruption.png").stat().st_size > 1000


def test_auroc_between_two_data_sets_is_scikit_learns(shapes_evaluation, write_split, noise, tmp_path):
    other = write_split(tmp_path / "other" / "train.parquet", [*noise(12), b"no image"]).parent
    evaluation = shapes_evaluation()
    found = dict(evaluate(evaluation, Options(images=2, ood=str(other))))
    there = shapes_evaluation(test=open_images(other), train=None).test_features
    here = evaluation.test_features
    is_other = np.repeat([0, 1], [40, 12])
    uncertainty = np.concatenate([here.uncertainty, there.uncertainty])
    norm = np.linalg.norm(np.concatenate([here.embedding, there.embedding]), axis=1)
    area = found["corruption.ood.auroc.uncertainty"]
    assert set(area) == {"value", "p_value", "ci_low", "ci_high"}
    assert area["value"] == pytest.approx(roc_auc_score(is_other, uncertainty), abs=1e-9)
    assert found["corruption.ood.auroc.norm"]["value"] == pytest.approx(
        roc_auc_score(is_other, -norm), abs=1e-9
    )
    assert found["corruption.ood.images"] == 12
    assert (tmp_path / "ood.png").stat().st_size > 1000


def test_other_images_are_drawn_by_the_seed_and_limited(shapes_evaluation, shapes_folder):
    evaluation = shapes_evaluation()
    found = dict(evaluate(evaluation, Options(images=1, ood=str(shapes_folder), ood_images=10)))
    assert found["corruption.ood.images"] == 10  # of the split test, the same images as here
    assert 0.2 < found["corruption.ood.auroc.uncertainty"]["value"] < 0.8


def test_other_data_that_are_not_there_are_named(shapes_evaluation, tmp_path):
    with pytest.raises(UserError, match="nothing"):
        dict(evaluate(shapes_evaluation(), Options(ood=str(tmp_path / "nothing"))))


def test_other_data_that_the_model_cannot_judge_are_named(shapes_evaluation, write_split, noise, tmp_path):
    """The test images are fine, one of the others gives an uncertainty that is not finite."""
    other = write_split(
        tmp_path / "other" / "train.parquet", [*noise(5), np.zeros((16, 16, 3), np.uint8)]
    ).parent
    evaluation = shapes_evaluation(model=copy.deepcopy(shapes_evaluation().model))
    head = evaluation.model.kappa_head
    real = head.uncertainty
    dark = []
    trunk = evaluation.model.forward_features
    evaluation.model.forward_features = lambda x: (dark.append(x.amax((1, 2, 3)) < -1), trunk(x))[1]
    head.uncertainty = lambda kappa: torch.where(dark[-1], torch.nan, real(kappa))
    assert np.isfinite(evaluation.test_features.uncertainty).all()
    with pytest.raises(UserError, match=r"other: .*not finite for 1 of 6"):
        dict(evaluate(evaluation, Options(images=1, ood=str(other))))


KINDS = list(CORRUPTIONS)


@pytest.fixture
def images():
    """Two smooth images (2, 96, 96, 3), uint8."""
    coarse = np.random.default_rng(0).integers(28, 228, (2, 24, 24, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((96, 96), Image.Resampling.BICUBIC)) for c in coarse]
    )


def spoil(image, kind, level, seed=4):
    return CORRUPTIONS[kind](image, level, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_is_worse_than_the_last(images, kind):
    errors = [np.square(spoil(images[0], kind, level) / 1.0 - images[0]).mean() for level in range(LEVELS)]
    assert (np.diff([0, *errors]) > 0).all()


@pytest.mark.parametrize("level", range(LEVELS))
def test_blur_is_scipys(images, level):
    """But for the borders, which are extended otherwise."""
    sigma = corruption.BLUR_SIGMA[level] * 96
    expected = gaussian_filter(images[0].astype(float), (sigma, sigma, 0), mode="nearest")
    off = np.abs(spoil(images[0], "blur", level) - expected)
    assert off.mean() < 1.5
    assert np.abs(images[0] - expected).mean() > off.mean()


def test_noise_is_one_pattern_of_growing_strength():
    gray = np.full((64, 64, 3), 128, dtype=np.uint8)
    first, second = (spoil(gray, "noise", level) - 128.0 for level in (1, 2))
    assert np.abs(second - 2 * first).max() <= 1.5  # whole grey levels
    assert first.std() == pytest.approx(255 * corruption.NOISE_STD[1], rel=0.03)
    assert not np.allclose(first, spoil(gray, "noise", 1, seed=9) - 128.0)


@pytest.mark.parametrize("level", range(LEVELS))
def test_occlusion_covers_its_share_and_what_a_lower_level_covered(level):
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    covered = (spoil(white, "occlusion", level) < 255).all(-1)
    assert covered.mean() == pytest.approx(corruption.OCCLUDED_AREA[level], rel=0.06)
    if level:
        below = (spoil(white, "occlusion", level - 1) < 255).all(-1)
        assert not (below & ~covered).any()


@pytest.mark.parametrize("level", range(LEVELS))
def test_jpeg_is_what_a_file_holds(images, level):
    buffer = io.BytesIO()
    Image.fromarray(images[1]).save(buffer, "JPEG", quality=corruption.JPEG_QUALITY[level])
    assert np.array_equal(spoil(images[1], "jpeg", level), np.asarray(Image.open(buffer)))


def test_views_are_all_of_these_for_an_image_alone_or_in_company(images):
    views = CorruptedViews(CentralCrop(96, 1.0, "center", "bilinear", (0.5,) * 3, (0.5,) * 3), 3)
    before, rows = images.copy(), np.array([8, 5])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    both = views(pixels, torch.full((2, 2), 96), rows)
    assert np.array_equal(images, before)
    assert len(both) == views.count == LEVELS * len(KINDS)
    for i in range(2):
        alone = views(pixels[i : i + 1], torch.full((1, 2), 96), rows[i : i + 1])
        told = views.pixels(images[i], rows[i])
        shown = np.concatenate([told[kind] for kind in KINDS])
        for one, view, levels in zip(alone, both, shown, strict=True):
            assert torch.equal(one[0], view[i])
            expected = torch.from_numpy(levels).permute(2, 0, 1) / 255
            torch.testing.assert_close(view[i] * 0.5 + 0.5, expected, atol=1e-6, rtol=0)
