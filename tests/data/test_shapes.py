"""The embedded data: deterministic, labelled, and ambiguous in a way that no cheap score gives away."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from vissl_zoo.data import shapes as module
from vissl_zoo.data.shapes import CLASSES, COUNTS, draw_image, shapes


def pixels(dataset) -> np.ndarray:
    """All images as uint8 (N, H, W, 3)."""
    return np.stack([np.asarray(image) for image in dataset["image"]])


@pytest.fixture(scope="module")
def many():
    return shapes("train", count=600)


def test_columns(many):
    assert many.column_names == ["image", "label", "ambiguity"]
    assert many.features["label"].names == list(CLASSES)
    assert pixels(many).shape == (600, 32, 32, 3)
    assert pixels(many).dtype == np.uint8
    ambiguity = np.array(many["ambiguity"])
    assert (ambiguity >= 0).all()
    assert (ambiguity <= 1).all()


def test_counts(monkeypatch):
    assert COUNTS == {"train": 8192, "test": 2048}
    monkeypatch.setattr(module, "COUNTS", {"train": 3, "test": 2})
    assert (len(shapes()), len(shapes("test"))) == (3, 2)


def test_everything_follows_from_seed_split_and_number(many):
    few = shapes("train", count=5)
    assert np.array_equal(pixels(few), pixels(many)[:5])
    assert few["label"] == many["label"][:5]
    assert few["ambiguity"] == many["ambiguity"][:5]
    for other in (shapes("train", count=5, seed=1), shapes("test", count=5)):
        assert not (pixels(other) == pixels(few)).all((1, 2, 3)).any()
        assert other["ambiguity"] != few["ambiguity"]


def test_splits_share_no_image(many):
    train = {image.tobytes() for image in pixels(many)}
    test = {image.tobytes() for image in pixels(shapes("test", count=200))}
    assert len(train) == 600
    assert not train & test


def test_labels_and_ambiguity_are_spread_and_independent(many):
    label, ambiguity = np.array(many["label"]), np.array(many["ambiguity"])
    counts = np.bincount(label, minlength=len(CLASSES))
    assert counts.min() > 0.5 * 60
    assert counts.max() < 1.6 * 60
    deciles = np.histogram(ambiguity, bins=10, range=(0, 1))[0]
    assert deciles.min() > 0.5 * 60
    assert max(abs(ambiguity[label == c].mean() - 0.5) for c in range(len(CLASSES))) < 0.15


def test_cheap_scores_do_not_give_the_ambiguity_away(many):
    """What κ is compared with must not be a loophole of the drawing."""
    ambiguity, images = np.array(many["ambiguity"]), pixels(many).astype(float)
    grey = images.mean(-1)
    edges = np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))
    scores = {
        "edges": edges,
        "deviation": images.std((1, 2, 3)),
        "brightness": images.mean((1, 2, 3)),
    }
    for name, score in scores.items():
        assert abs(spearmanr(score, ambiguity).statistic) < 0.35, name


def shape_mask(image) -> np.ndarray:
    """Pixels far from the background, which the corners mostly show."""
    grey = np.asarray(image).astype(float).mean(-1)
    return np.abs(grey - np.median(grey)) > 30


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_the_labelled_shape_shrinks_with_the_ambiguity(label):
    """Drawn without competitors, so that what is seen is the labelled shape."""
    covered = []
    for ambiguity in (0.0, 1.0):
        areas = []
        for seed in range(8):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "MOST_COMPETITORS", 0)
                image = draw_image(np.random.default_rng(seed), label, ambiguity, 64)
            areas.append(shape_mask(image).mean())
        covered.append(np.mean(areas))
    assert covered[0] > 1.5 * covered[1]


def test_clear_images_have_one_shape_and_ambiguous_ones_several(monkeypatch):
    drawn = []
    original = module._draw
    monkeypatch.setattr(module, "_draw", lambda *a: (drawn.append(a[1]), original(*a)))
    counts = {}
    for ambiguity in (0.0, 0.5, 1.0):
        counts[ambiguity] = []
        for seed in range(20):
            drawn.clear()
            draw_image(np.random.default_rng(seed), 3, ambiguity, 16)
            assert drawn[0] == CLASSES[3]
            assert len(set(drawn)) == len(drawn)
            counts[ambiguity].append(len(drawn))
    assert set(counts[0.0]) == {1}
    assert np.mean(counts[0.0]) < np.mean(counts[0.5]) < np.mean(counts[1.0])


def test_classes_look_different():
    """Ten templates of the same place and size: no two agree."""
    masks = []
    for label in range(len(CLASSES)):
        images = [draw_image(np.random.default_rng(seed), label, 0.0, 32) for seed in range(60)]
        masks.append(np.mean([shape_mask(image) for image in images], axis=0))
    for i in range(len(masks)):
        for j in range(i):
            assert np.abs(masks[i] - masks[j]).mean() > 0.01, (CLASSES[i], CLASSES[j])


@pytest.mark.parametrize("size", [8, 20, 48])
def test_size(size):
    assert pixels(shapes("test", size=size, count=2)).shape == (2, size, size, 3)


@pytest.mark.parametrize(
    "arguments, message", [(("val",), "train, test"), (("train", 7, 1), "size"), (("train", 32, 0), "count")]
)
def test_bad_arguments(arguments, message):
    keywords = dict(zip(("size", "count"), arguments[1:], strict=False))
    with pytest.raises(ValueError, match=message):
        shapes(arguments[0], **keywords)
