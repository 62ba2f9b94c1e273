"""Training images as supervised learning sees them: random resized crops (area 0.08 to 1), mirrored half the time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.views import ViewPipeline

SCALE = (0.08, 1.0)  # App. B


class CropReader:
    """New random crops of some training images at every step, drawn from (seed, step) alone."""

    def __init__(self, evaluation: Evaluation, chosen: np.ndarray):
        """Take `chosen`, places (n,) in `evaluation.train_features`, where no corrupt image has one."""
        self._model = evaluation.model
        self._parameter = next(evaluation.model.parameters())
        self._store = evaluation.train_store
        self._positions = np.searchsorted(self._store.rows, evaluation.train_features.rows[chosen])
        self._pipeline = ViewPipeline(
            evaluation.image_size,
            standard=1,
            scale=SCALE,
            jitter=0.0,
            grayscale=0.0,
            blur=0.0,
            seed=evaluation.seed,
            **evaluation.statistics._asdict(),
        )

    def crops(self, order: Iterable[Tensor], labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of places (B,) among the n chosen: crops (B, 3, s, s) of the model's kind, classes (B,)."""
        order, ahead = tee(order)  # the store may read a few batches ahead
        stored = self._store.batches(self._positions[places.numpy()] for places in ahead)
        for step, (places, batch) in enumerate(zip(order, stored, strict=True)):
            draws = self._pipeline.draw(len(places), step)
            images = batch.images.to(self._parameter.device)
            (view,) = self._pipeline.render(images, batch.sizes, draws)
            yield view.to(self._parameter.dtype), labels[places]

    def embeddings(self, order: Iterable[Tensor], labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """As `crops`, but the model's embeddings (B, F) float32 of them; the model is not trained."""
        for view, classes in self.crops(order, labels):
            with torch.no_grad():
                embedding = self._model(view).float()
            yield embedding, classes
