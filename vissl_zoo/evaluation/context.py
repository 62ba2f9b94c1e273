"""What every protocol is given: a model, the images, and features that are extracted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from vissl_zoo.data import ImageTable
from vissl_zoo.inference import CentralCrop, Embedded, Views, cached_features, central_crop, embed, embed_all
from vissl_zoo.output import write_whole
from vissl_zoo.views import ViewPipeline

VALIDATION_SHARE = 0.2  # of the training images, for choosing what has to be chosen (App. B)
NO_KAPPA = "the model has no κ head"


@dataclass(frozen=True)
class Undefined:
    """A measure that these data do not define: null in metrics.json, with the reason beside it."""

    reason: str


@dataclass(eq=False)
class Evaluation:
    """One model on one data set; protocols read from it and leave predictions and figures in it.

    Attributes:
        model: without a classifier, in evaluation mode.
        heads: tensors of projector and predictor, or None.
        train, test: the images; `train` is None where there is no split to learn from.
        image_size: side of the images that the model sees.
        output_dir: where figures go; None where none are wanted.
        seed: of every random choice.
        predictions: columns (N,) of predictions.parquet, one value per test image.
        figures: (file name, caption) of the pictures drawn.
        memo: results that more than one protocol needs, by name.
        workers: threads that decode images.
        cache: look for features on disk, and keep them there.
        exact: plain float32 everywhere, the same bits in every run on a machine.
    """

    model: nn.Module
    heads: dict[str, Tensor] | None
    train: ImageTable | None
    test: ImageTable
    image_size: int
    output_dir: Path | None = None
    seed: int = 0
    workers: int | None = None
    cache: bool = True
    exact: bool = False
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    figures: list[tuple[str, str]] = field(default_factory=list)
    memo: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def crop(self) -> CentralCrop:
        """The central crop that the model sees of an image."""
        return central_crop(self.model, self.image_size)

    @cached_property
    def test_features(self) -> Embedded:
        """Features of the test images, from the cache where it has them; those that cannot be read are left out."""
        return self.features(self.test, "test images")

    @cached_property
    def train_features(self) -> Embedded:
        """Features of the training images, as `test_features`."""
        return self.features(cast(ImageTable, self.train), "training images")

    def features(self, table: ImageTable, what: str, rows: np.ndarray | None = None) -> Embedded:
        """Features of a table's images, or of some rows (n,) of it, from the cache where it has them."""
        options = {"rows": rows, "exact": self.exact, "workers": self.workers, "progress": what}
        extract = cached_features if self.cache else embed_all
        return extract(self.model, table, self.image_size, **options)

    def views(self, places: np.ndarray, views: ViewPipeline | Views, what: str) -> Iterator[Embedded]:
        """Views of the test images at `places` (n,) of `test_features`, batch by batch; `what` names the work."""
        return embed(
            self.model,
            self.test,
            self.image_size,
            rows=self.test_features.rows[places],
            views=views,
            exact=self.exact,
            workers=self.workers,
            progress=what,
        )

    @property
    def test_labels(self) -> np.ndarray:
        """Classes (N,) of the test images, in the order of `test_features`; -1 where unknown."""
        return cast(np.ndarray, self.test.labels)[self.test_features.rows]

    @property
    def train_labels(self) -> np.ndarray:
        """Classes (M,) of the training images, in the order of `train_features`."""
        return cast(Any, self.train).labels[self.train_features.rows]

    @property
    def classes(self) -> int:
        """Number of classes, over both splits."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    @cached_property
    def validation(self) -> np.ndarray:
        """Which training images (M,) bool are the local validation split: a fifth, the same for every protocol."""
        count = len(self.train_features.rows)
        held_out = max(1, int(VALIDATION_SHARE * count))
        return np.isin(np.arange(count), np.random.default_rng(self.seed).permutation(count)[:held_out])

    def save_figure(self, figure: Figure, name: str, caption: str) -> None:
        """Write a figure as PNG and list it for the page."""
        if self.output_dir is not None:
            write_whole(self.output_dir / name, lambda path: figure.savefig(path, format="png"))
            self.figures.append((name, caption))
