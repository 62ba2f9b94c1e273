"""Retrieval: has the nearest image the same class, does κ know it, and is a crop less certain than the whole?

The measures of the URL benchmark (Kirchhof et al., "URL: A representation learning benchmark for transferable
uncertainty estimates", 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vissl_zoo.evaluation.context import NO_KAPPA, Evaluation, Undefined
from vissl_zoo.evaluation.image_views import plain_pipeline, unit_length
from vissl_zoo.evaluation.measures import auroc_with_p
from vissl_zoo.inference import RowViews, concatenate

TITLE = "Retrieval"
NEEDS: set[str] = set()
PAPER: dict[str, str] = {}
CROP_AREA = (0.25**2, 0.75**2)  # of the central square: 25 to 75% of its side
CHUNK = 1024  # images compared with all others at once


@dataclass(frozen=True)
class Options:
    """What to measure."""

    crop: bool = True
    """Measure whether a crop is less certain than the whole, which embeds one crop of every test image."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Recall@1 among the test images, R-AUROC, and the share of crops that are less certain than the whole image."""
    features = evaluation.test_features
    labelled = None if evaluation.test.labels is None else evaluation.test_labels >= 0
    if labelled is None or labelled.sum() < 2:
        reason = "the images have no labels" if labelled is None else "fewer than two images have labels"
        yield "retrieval.recall_at_1", Undefined(reason)
        yield "retrieval.r_auroc", Undefined(reason)
    else:
        found, labels = nearest_other(features.embedding[labelled]), evaluation.test_labels[labelled]
        correct = labels[found] == labels
        yield "retrieval.recall_at_1", float(correct.mean())
        yield "retrieval.r_auroc", _r_auroc(evaluation, labelled, correct)
        neighbour = np.full(len(labelled), -1)
        neighbour[labelled] = features.rows[labelled][found]
        evaluation.predictions["nearest_row"] = neighbour
    if features.uncertainty is None:
        yield "retrieval.crop", Undefined(NO_KAPPA)
    elif not options.crop:
        yield "retrieval.crop", Undefined("--retrieval.no-crop left it out")
    else:
        cropped = crop_uncertainty(evaluation)
        evaluation.predictions["crop_uncertainty"] = cropped
        yield "retrieval.crop", share_above(cropped, features.uncertainty)


def nearest_other(embedding: np.ndarray) -> np.ndarray:
    """Position (N,) of the image of the highest cosine, the image itself left out by its place; N >= 2.

    A duplicate of an image under another row counts as another image. Of equal neighbours one is taken.
    """
    points = torch.from_numpy(unit_length(embedding))
    found = []
    for start in range(0, len(points), CHUNK):
        cosine = points[start : start + CHUNK] @ points.T
        cosine.diagonal(start).fill_(-torch.inf)
        found.append(cosine.argmax(dim=1))
    return torch.cat(found).numpy()


def crop_uncertainty(evaluation: Evaluation) -> np.ndarray:
    """Uncertainty (N,) of one random square crop of each test image, which the seed alone draws.

    It is cut out of the central square that the whole image's uncertainty is of, so that a crop never shows what its
    whole does not. Its area is uniform between 1/16 and 9/16 of the square's, so its side 25 to 75%; its place is
    uniform, its colours stay, and it is resized to what the model takes.
    """
    everything = np.arange(len(evaluation.test_features.rows))
    views = RowViews(plain_pipeline(evaluation, 1, scale=CROP_AREA), of_crop=True)
    return concatenate(evaluation.views(everything, views, "crops")).uncertainty[0]


def share_above(cropped: np.ndarray, whole: np.ndarray) -> float:
    """P(u(crop) > u(whole)) over N images, both (N,); a tie counts half, so that a constant u gives one half."""
    return float(((cropped > whole) + (cropped == whole) / 2).mean())


def _r_auroc(evaluation: Evaluation, labelled: np.ndarray, correct: np.ndarray) -> object:
    """AUROC of κ for a correct retrieval, with its p and interval."""
    kappa = evaluation.test_features.kappa
    if kappa is None:
        return Undefined(NO_KAPPA)
    if not np.isfinite(kappa[labelled]).all():
        return Undefined("κ is not finite")
    area = auroc_with_p(kappa[labelled], correct, seed=evaluation.seed)
    if area is None:
        return Undefined(f"every retrieval is {'correct' if correct.all() else 'wrong'}")
    return area._asdict()
