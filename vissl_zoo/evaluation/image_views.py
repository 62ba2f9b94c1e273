"""Views of an evaluation's images beyond the clean crop: random ones of the test images, and crops to train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import cast

import numpy as np
from torch import Tensor

from vissl_zoo.data import ImageTable, canvas_size, open_store
from vissl_zoo.data.store import decode_batches
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.inference import concatenate
from vissl_zoo.inference.forward import exact_forward
from vissl_zoo.views import ViewPipeline

SUPERVISED_SCALE = (0.08, 1.0)  # App. B


def sample_images(evaluation: Evaluation, limit: int, among: np.ndarray | None = None) -> np.ndarray:
    """At most `limit` test images, drawn by the evaluation's seed: their places (n,) in `test_features`, sorted.

    Args:
        evaluation: the images.
        limit: how many.
        among: places (m,) to draw from, by default all.
    """
    places = np.arange(len(evaluation.test_features.rows)) if among is None else among
    return np.sort(np.random.default_rng(evaluation.seed).permutation(places)[:limit])


def simsiam_pipeline(evaluation: Evaluation, *, repeat: int = 0, **changes) -> ViewPipeline:
    """Two views by SimSiam's augmentation, but for what `changes` says; each `repeat` draws others."""
    crop = evaluation.crop
    given = {"mean": crop.mean, "std": crop.std, "seed": (evaluation.seed + repeat) % 2**32}
    return ViewPipeline(crop.size, **{**given, **changes})


def plain_pipeline(evaluation: Evaluation, views: int, **changes) -> ViewPipeline:
    """A pipeline of `views` views that changes nothing of a square image but what `changes` turns on."""
    square = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    off = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0}
    return simsiam_pipeline(evaluation, **{"standard": views, **square, **off, **changes})


def two_views(evaluation: Evaluation) -> np.ndarray:
    """L2-normalised embeddings (2, N, F) of two views of every test image by SimSiam's augmentation; made once."""
    if "two_views" not in evaluation.memo:
        everything = np.arange(len(evaluation.test_features.rows))
        views = concatenate(evaluation.views(everything, simsiam_pipeline(evaluation), "two views"))
        evaluation.memo["two_views"] = unit_length(views.embedding)
    return evaluation.memo["two_views"]


def unit_length(embedding: np.ndarray) -> np.ndarray:
    """Embeddings (…, F) divided by their length; one of length zero stays zero."""
    length = np.linalg.norm(embedding, axis=-1, keepdims=True)
    return embedding / np.maximum(length, np.finfo(np.float32).tiny)


class CropReader:
    """Training images as supervised learning sees them: new random resized crops at every step, half of them mirrored.

    They are drawn from (seed, step) alone.
    """

    def __init__(self, evaluation: Evaluation, chosen: np.ndarray):
        """Take `chosen`, places (n,) in `evaluation.train_features`, where no corrupt image has one."""
        self._model = evaluation.model
        self._parameter = next(evaluation.model.parameters())
        self._table = cast(ImageTable, evaluation.train).select(evaluation.train_features.rows[chosen])
        self._size, self._workers = evaluation.image_size, evaluation.workers
        self._store = open_store(self._table, self._size, workers=self._workers, progress=False)
        self._pipeline = plain_pipeline(
            evaluation, 1, scale=SUPERVISED_SCALE, ratio=ViewPipeline.ratio, flip=0.5
        )

    def crops(self, order: Iterable[Tensor], labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of places (B,) among the n chosen: crops (B, 3, s, s) of the model's kind, classes (B,)."""
        order, ahead = tee(order)  # the store may read a few batches ahead
        places = (some.numpy() for some in ahead)
        if self._store is None:
            stored = decode_batches(self._table, canvas_size(self._table, self._size), places, self._workers)
        else:
            stored = self._store.batches(places)
        for step, (places, batch) in enumerate(zip(order, stored, strict=True)):
            draws = self._pipeline.draw(len(places), step)
            images = batch.images.to(self._parameter.device)
            (view,) = self._pipeline.render(images, batch.sizes, draws)
            yield view.to(self._parameter.dtype), labels[places]

    def embeddings(self, order: Iterable[Tensor], labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """As `crops`, but the model's embeddings (B, F) float32 of them; the model is not trained."""
        forward = exact_forward(self._model)
        for view, classes in self.crops(order, labels):
            yield forward(view).embedding, classes
