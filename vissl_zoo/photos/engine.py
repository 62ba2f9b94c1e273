"""From a model and a table of images to embedding, κ and uncertainty of each, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from vissl_zoo.data import ImageTable
from vissl_zoo.inference import central_crop, embed
from vissl_zoo.views import ViewPipeline


class Scored(NamedTuple):
    """What a model says of the images of one batch, also of those that failed.

    Attributes:
        rows: (B,) int64, rows of the table.
        embedding: (B, F) float32, of the central crop, not normalised; NaN where it failed.
        kappa: (B,) float32, NaN where it failed.
        uncertainty: (B,) float32 in [0, 1], higher is less certain; NaN where it failed.
        sizes: (B, 2) int64, original height and width in pixels; 0 where unknown.
        errors: (B,) one line each, None where all is well.
    """

    rows: np.ndarray
    embedding: np.ndarray
    kappa: np.ndarray
    uncertainty: np.ndarray
    sizes: np.ndarray
    errors: list[str | None]


def score_images(
    model: nn.Module,
    table: ImageTable,
    image_size: int,
    *,
    rows: np.ndarray | None = None,
    views: int = 1,
    seed: int = 0,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[Scored]:
    """Score images in the order of `rows`; one that cannot be read, or of which the model's output is not finite, has
    its reason in `errors` and never stops the rest.

    Args:
        model: any model; one without a κ head gives NaN for κ and uncertainty, without an error.
        table: the images.
        image_size: side in pixels of what the model sees, the central crop as `central_crop` takes it.
        rows: (N,) rows of the table, repetitions allowed; by default all.
        views: with more than 1, κ is the mean over that many random views (see `mild_views`) in place of that of the
            central crop, and the uncertainty is that of the mean; without κ, as of DINO, the uncertainty is the mean.
            An image's views follow from the seed and its row alone.
        seed: of the views.
        exact: the same bits in every run, see `embed`; slower.
        batch_size: images of a forward pass; by default chosen by the device.
        workers: threads that decode; by default one for each CPU, 16 at most.

    Raises:
        ValueError: `views` or `batch_size` below 1, or a row that the table does not have.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    if views < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"views and batch_size must be at least 1, got {views} and {batch_size}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(table):
        raise ValueError(f"rows must lie in 0 … {len(table) - 1}, got {rows.min()} to {rows.max()}")
    return _score(model, table, image_size, rows, views, seed, exact, batch_size, workers)


def mild_views(
    model: nn.Module,
    image_size: int,
    views: int,
    seed: int = 0,
) -> ViewPipeline:
    """Views for a mean κ: crops of 40–100 % of the area, mirrored half the time, and a little colour jitter.

    AUROC for correct kNN answers, 2,048 test images of one demo: κ of the central crop .699, mean of 8 such
    views .724, without the jitter .724, crops of 20–100 % .713, SimSiam's own augmentation .711; the central crop's κ
    as a ninth changed nothing.
    """
    crop = central_crop(model, image_size)
    return ViewPipeline(
        image_size,
        standard=views,
        scale=(0.4, 1.0),
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.05,
        grayscale=0.0,
        blur=0.0,
        seed=seed % 2**32,
        mean=crop.mean,
        std=crop.std,
    )


def _score(model, table, image_size, rows, views, seed, exact, batch_size, workers) -> Iterator[Scored]:
    pipeline = mild_views(model, image_size, views, seed) if views > 1 else None
    options = {"views": pipeline, "clean": True, "exact": exact, "batch_size": batch_size, "workers": workers}
    for batch in embed(model, table, image_size, rows=rows, **options):
        embedding, kappa, uncertainty = batch.representation
        if kappa is None:
            kappa = uncertainty = np.full(len(batch.errors), np.nan, dtype=np.float32)
        elif views > 1:
            kappa, uncertainty = _over_views(model, kappa[1:], uncertainty[1:])
        embedding = embedding if views == 1 else embedding[0]
        yield Scored(batch.rows, embedding, kappa, uncertainty, batch.sizes, batch.errors)


def _over_views(
    model: nn.Module, kappa: np.ndarray, uncertainty: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """κ and uncertainty (B,) of (V, B): the mean κ over the views and what it says, of DINO the mean uncertainty."""
    kappa, uncertainty = kappa.mean(0, dtype=np.float64), uncertainty.mean(0, dtype=np.float64)
    head = getattr(model, "kappa_head", None)
    if head is not None and getattr(model, "prototype_head", None) is None:
        uncertainty = head.uncertainty(torch.from_numpy(kappa)).numpy()  # so that both rank the images alike
    return kappa.astype(np.float32), uncertainty.astype(np.float32)
