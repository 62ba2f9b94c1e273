"""Views of the test images beyond the clean crop: rendered in batches as training renders them, and represented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.features import IMAGENET, Statistics, central_crop
from vissl_zoo.views import ViewDraws, ViewPipeline

FORWARD = 256  # views of one forward pass

Render = Callable[[Tensor, Tensor, slice], list[Tensor]]
"""(uint8 canvases (B, 3, H, W), original sizes (B, 2), which of the chosen images these are) -> V views, each
(B, 3, s, s) and normalised."""


class ViewFeatures(NamedTuple):
    """What a model says of V views of N images; `kappa` and `uncertainty` are None without a κ head.

    Attributes:
        embedding: (V, N, F) float32, not normalised.
        kappa: (V, N) float32.
        uncertainty: (V, N) float32 in [0, 1], higher is less certain.
    """

    embedding: Tensor
    kappa: Tensor | None
    uncertainty: Tensor | None


def sample_images(evaluation: Evaluation, limit: int, among: np.ndarray | None = None) -> np.ndarray:
    """At most `limit` test images, drawn by the evaluation's seed: their places (n,) in `test_features`, sorted.

    Args:
        evaluation: the images.
        limit: how many.
        among: places (m,) to draw from, by default all.
    """
    places = np.arange(len(evaluation.test_features.rows)) if among is None else among
    return np.sort(np.random.default_rng(evaluation.seed).permutation(places)[:limit])


def plain_pipeline(evaluation: Evaluation, views: int, **changes) -> ViewPipeline:
    """A pipeline of `views` views that changes nothing of a square image but what `changes` turns on."""
    off = {
        "scale": (1.0, 1.0),
        "ratio": (1.0, 1.0),
        "flip": 0.0,
        "jitter": 0.0,
        "grayscale": 0.0,
        "blur": 0.0,
        **evaluation.statistics._asdict(),
    }
    return ViewPipeline(
        evaluation.image_size, standard=views, seed=evaluation.seed % 2**32, **{**off, **changes}
    )


def training_views(evaluation: Evaluation) -> ViewPipeline:
    """Two views by SimSiam's augmentation."""
    by = evaluation.statistics
    return ViewPipeline(evaluation.image_size, seed=evaluation.seed % 2**32, mean=by.mean, std=by.std)


def random_views(pipeline: ViewPipeline, draws: ViewDraws) -> Render:
    """Render what `draws`, of all chosen images, say: crops are taken from the whole image, as in training."""
    return lambda images, sizes, part: pipeline.render(images, sizes, draws[part])


def on_central_crop(render: Render, size: int) -> Render:
    """Let `render` see the clean central crop, (B, 3, size, size) uint8, in place of the whole image.

    An augmentation or corruption is then compared with the clean crop alone, and not with another framing.
    """

    def rendered(images: Tensor, sizes: Tensor, part: slice) -> list[Tensor]:
        squares = pixels(central_crop(images, sizes, size))
        return render(squares, torch.full((len(squares), 2), size), part)

    return rendered


def each_batch(
    evaluation: Evaluation, chosen: np.ndarray, render: Render, views: int, *, progress: str | None = None
) -> Iterator[tuple[slice, ViewFeatures]]:
    """Represent `views` views of the chosen test images, a batch of images at a time.

    Args:
        evaluation: the model and the images.
        chosen: places (N,) in `test_features`, in any order and with repetitions. Corrupt images have none.
        render: makes the views of a batch.
        views: V, how many it makes.
        progress: what to call the work in a progress bar; no bar if None.

    Yields:
        (part, features): features of the views of `chosen[part]`, on the CPU.
    """
    store, model = evaluation.test_store, evaluation.model
    positions = np.searchsorted(store.rows, evaluation.test_features.rows[chosen])
    parameter = next(model.parameters())
    has_kappa = getattr(model, "kappa_head", None) is not None
    step = max(1, FORWARD // views)
    parts = [slice(i, min(i + step, len(chosen))) for i in range(0, len(chosen), step)]
    batches = store.batches(positions[part] for part in parts)
    with tqdm(
        total=views * len(chosen), desc=progress, unit="view", disable=progress is None, leave=False
    ) as bar:
        for part, batch in zip(parts, batches, strict=True):
            with torch.inference_mode():
                rendered = render(batch.images.to(parameter.device), batch.sizes, part)
                x = torch.cat(rendered).to(parameter.dtype)
                said = model.represent(x) if has_kappa else (model(x), None, None)
                features = (None if s is None else s.float().cpu().unflatten(0, (views, -1)) for s in said)
            yield part, ViewFeatures(*features)
            bar.update(len(x))


def represent_views(
    evaluation: Evaluation, chosen: np.ndarray, render: Render, views: int, *, progress: str | None = None
) -> ViewFeatures:
    """`each_batch`, put together: memory for V × N embeddings is needed."""
    parts = [features for _, features in each_batch(evaluation, chosen, render, views, progress=progress)]
    return ViewFeatures(
        *(None if column[0] is None else torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    )


def normalised(images: Tensor, by: Statistics = IMAGENET) -> Tensor:
    """Images (B, 3, s, s) in [0, 1] -> as a network takes them."""
    mean, std = images.new_tensor(by).view(2, 3, 1, 1)
    return (images - mean) / std


def pixels(views: Tensor, by: Statistics = IMAGENET) -> Tensor:
    """Normalised views (B, 3, s, s) -> uint8 (B, 3, s, s), as one would look at them."""
    mean, std = views.new_tensor(by).view(2, 3, 1, 1)
    return (views * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
