"""Does uncertainty rise with corruption, and on other data? Spearman with severity, AUROC between two data sets.

Each corruption is made on the clean central crop at five levels. Blur, noise and JPEG quality are those of ImageNet-C
(Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", 2019) in
kind. The levels are ours, about a doubling from one to the next, so that they serve images of any size. The noise and
the place of the occlusion belong to an image and are the same at every level: only the severity changes.

Per image the rank correlation of uncertainty with the level asks whether that image becomes less certain; over all
images it is weakened by how they differ to begin with.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageFilter
from scipy.stats import rankdata
from torch import Tensor

from vissl_zoo.cli import Count
from vissl_zoo.data import available_splits, open_images
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.figures import NEUTRAL, SURE, UNSURE, new_figure, tidy
from vissl_zoo.evaluation.image_views import sample_images
from vissl_zoo.evaluation.measures import Auroc, auroc_with_p
from vissl_zoo.evaluation.protocols.ambiguity import spearman
from vissl_zoo.inference import CentralCrop, Embedded, concatenate
from vissl_zoo.inference.loading import TEST_SPLITS
from vissl_zoo.views import IMAGENET_MEAN

TITLE = "corruption and out-of-distribution images"
NEEDS = {"kappa"}
PAPER: dict[str, str] = {}
LEVELS = 5
BLUR_SIGMA = (1 / 224, 2 / 224, 4 / 224, 8 / 224, 16 / 224)  # of the side: 1 to 16 pixels of 224
NOISE_STD = (0.02, 0.04, 0.08, 0.16, 0.32)  # of the range from black to white
OCCLUDED_AREA = (0.05, 0.1, 0.2, 0.4, 0.6)
JPEG_QUALITY = (50, 30, 20, 10, 5)


@dataclass(frozen=True)
class Options:
    """How many images are corrupted, and which others to compare with."""

    images: Count = 500
    """Test images to corrupt, drawn by the seed; each costs 20 forward passes."""
    ood: str | None = None
    """Another data set, path or name: how well uncertainty tells its images from the test images."""
    ood_images: Count = 2000
    """Images of the other data set, drawn by the seed."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Spearman of uncertainty with the level of each corruption; AUROC of uncertainty for the other data set."""
    other = None if options.ood is None else other_features(evaluation, options.ood, options.ood_images)
    chosen = sample_images(evaluation, options.images)
    yield "corruption.images", len(chosen)
    views = CorruptedViews(evaluation.crop, evaluation.seed)
    said = concatenate(evaluation.views(chosen, views, "corrupted images")).uncertainty
    found = dict(zip(CORRUPTIONS, said.reshape(len(CORRUPTIONS), LEVELS, -1), strict=True))
    for kind, uncertainty in found.items():
        yield f"corruption.{kind}", correlations(uncertainty)
    caption = (
        "Uncertainty under corruption: a test image at the five levels with its uncertainty, and median and quartiles "
        f"over {len(chosen)} images. Level 0 is the clean crop."
    )
    evaluation.save_figure(_draw(evaluation, chosen, found), "corruption.png", caption)
    if other is not None and options.ood is not None:
        yield from _out_of_distribution(evaluation, other, options.ood)


def blur(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR_SIGMA[level] * len(image))))


def noise(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of every pixel and channel."""
    pattern = rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(image + 255 * NOISE_STD[level] * pattern).clip(0, 255).astype(np.uint8)


def occlusion(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A square of the mean colour; a higher level's contains a lower level's."""
    side, covered = len(image), image.copy()
    extent = max(1, round(side * OCCLUDED_AREA[level] ** 0.5))
    # Half up and not to even: with one place for all levels, the squares then lie in each other.
    top, left = np.floor(rng.random(2) * (side - extent) + 0.5).astype(int)
    covered[top : top + extent, left : left + extent] = np.rint(255 * np.array(IMAGENET_MEAN))
    return covered


def jpeg(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG compression."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY[level])
    return np.asarray(Image.open(buffer))


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "occlusion": occlusion,
    "jpeg": jpeg,
}
"""(image uint8 (s, s, 3), level from 0, the mildest, to 4, the image's own random numbers) -> the image spoilt."""


class CorruptedViews:
    """All levels of all corruptions of the central crop, one corruption after the other: views for `embed`."""

    count, of_crop = len(CORRUPTIONS) * LEVELS, True

    def __init__(self, crop: CentralCrop, seed: int):
        self._crop, self._seed = crop, seed

    def __call__(self, pixels: Tensor, sizes: Tensor, rows: np.ndarray) -> list[Tensor]:
        """See `Views`."""
        images = pixels.permute(0, 2, 3, 1).cpu().numpy()
        spoilt = [self.pixels(image, int(row)) for image, row in zip(images, rows, strict=True)]
        views = torch.from_numpy(
            np.stack([np.concatenate(list(levels.values())) for levels in spoilt], axis=1)
        )
        return [self._crop.normalise(view.permute(0, 3, 1, 2).to(pixels.device)) for view in views]

    def pixels(self, image: np.ndarray, row: int) -> dict[str, np.ndarray]:
        """Each corruption of an image uint8 (s, s, 3) of the table, (5, s, s, 3)."""
        return {
            kind: np.stack(
                [spoil(image, level, np.random.default_rng((self._seed, row))) for level in range(LEVELS)]
            )
            for kind, spoil in CORRUPTIONS.items()
        }


def correlations(uncertainty: np.ndarray) -> dict[str, object]:
    """Spearman of uncertainty (L, N) with the level: over all L·N, and the mean over the images of each one's own.

    An image whose uncertainty never changes has no correlation and is left out of the mean.
    """
    levels = np.broadcast_to(np.arange(len(uncertainty))[:, None], uncertainty.shape)
    overall = spearman(uncertainty.ravel(), levels.ravel())
    changed = np.ptp(uncertainty, axis=0) > 0
    constant = Undefined("uncertainty is the same at every level")
    own = np.nan
    if changed.any():
        ranks = rankdata(uncertainty[:, changed], axis=0)
        ranks -= ranks.mean(axis=0)
        steps = np.arange(len(uncertainty)) - (len(uncertainty) - 1) / 2
        own = (steps @ ranks / np.sqrt((steps**2).sum() * (ranks**2).sum(axis=0))).mean()
    return {
        "spearman": constant if isinstance(overall, Undefined) else overall,
        "spearman_per_image": own if changed.any() else constant,
    }


def other_features(evaluation: Evaluation, path: str, limit: int) -> Embedded:
    """Features of at most `limit` images of another data set.

    Raises:
        UserError: there are no images at `path`.
    """
    splits = available_splits(path)
    table = open_images(path, split=next((s for s in TEST_SPLITS if s in splits), splits[0]))
    rows = np.sort(np.random.default_rng(evaluation.seed).permutation(len(table))[:limit])
    return evaluation.features(table, "other images", rows)


def _out_of_distribution(evaluation: Evaluation, other: Embedded, path: str) -> Iterator[tuple[str, object]]:
    """AUROC of uncertainty, and of minus the embedding's norm, which needs no κ: 1 if all others are less certain."""
    ours = evaluation.test_features
    is_other = np.repeat([False, True], [len(ours.rows), len(other.rows)])
    norms = [-np.linalg.norm(f.embedding, axis=1) for f in (ours, other)]
    for name, scores in (("uncertainty", (ours.uncertainty, other.uncertainty)), ("norm", norms)):
        area = auroc_with_p(np.concatenate(scores), is_other, seed=evaluation.seed)
        yield f"corruption.ood.auroc.{name}", cast(Auroc, area)._asdict()
    yield "corruption.ood.images", len(other.rows)
    yield "corruption.ood.data", path
    figure = new_figure(5.4, 2.8)
    axes = figure.subplots()
    both = np.concatenate([ours.uncertainty, other.uncertainty])
    bins = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), 41)
    for values, colour, label in ((ours.uncertainty, SURE, "test images"), (other.uncertainty, UNSURE, path)):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, bins, weights=weights, color=colour, alpha=0.6, label=label)
    axes.set_xlabel("uncertainty", fontsize=9)
    axes.set_ylabel("share of images", fontsize=9)
    figure.legend(loc="outside upper left", fontsize=8, frameon=False)
    tidy(axes)
    evaluation.save_figure(figure, "ood.png", f"Uncertainty of the test images and of {path}.")


def _draw(evaluation: Evaluation, chosen: np.ndarray, found: dict[str, np.ndarray]) -> Figure:
    """A row for each corruption: an image at every level, and the curve of uncertainty against the level."""
    features = evaluation.test_features
    clean = features.uncertainty[chosen]
    example = int(np.argsort(clean, kind="stable")[len(clean) // 2])  # of median uncertainty
    row = int(features.rows[chosen[example]])
    square = evaluation.crop.crop(evaluation.test.read(row))
    levels = CorruptedViews(evaluation.crop, evaluation.seed).pixels(square, row)
    figure = new_figure(9.2, 1.3 * len(found))
    grid = figure.subplots(len(found), LEVELS + 2, width_ratios=[*[1] * (LEVELS + 1), 2.1])
    quartiles = {
        kind: np.quantile(np.concatenate([clean[None], values]), [0.25, 0.5, 0.75], axis=1)
        for kind, values in found.items()
    }
    bounds = np.concatenate(list(quartiles.values()), axis=1)
    margin = 0.06 * max(np.ptp(bounds), 1e-6)
    for row, (kind, values) in zip(grid, found.items(), strict=True):
        shown = [square, *levels[kind]]
        for axes, image, said in zip(row, shown, [clean[example], *values[:, example]], strict=False):
            axes.imshow(image, interpolation="nearest" if len(image) < 100 else "antialiased")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_title(f"{said:.3f}", fontsize=8, color=NEUTRAL, pad=2)
        row[0].set_ylabel(kind, fontsize=9)
        low, middle, high = quartiles[kind]
        row[-1].fill_between(range(LEVELS + 1), low, high, color=UNSURE, alpha=0.2, lw=0)
        row[-1].plot(range(LEVELS + 1), middle, color=UNSURE, marker="o", ms=3, lw=1.3)
        row[-1].set_ylim(bounds.min() - margin, bounds.max() + margin)
        row[-1].set_xticks(range(LEVELS + 1))
        tidy(row[-1])
    grid[0, -1].set_title("uncertainty, by level", fontsize=8, color=NEUTRAL, pad=2)
    return figure
