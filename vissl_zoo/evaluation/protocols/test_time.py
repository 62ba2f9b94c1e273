"""Test-time choice (App. E, Table 5): classify each image by the one of 30 random crops that has the highest κ.

The paper compares that with the clean crop. What it must also be compared with, to tell κ from the crops: one random
crop, the mean embedding of all 30, and their mean weighted by κ, Σ κμ over the L2-normalised embeddings μ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from matplotlib.figure import Figure

from vissl_zoo.cli import Count, Within
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.figures import SURE, UNSURE, new_figure, tidy
from vissl_zoo.evaluation.image_views import plain_pipeline, sample_images, unit_length
from vissl_zoo.evaluation.linear_classifier import linear_predictions
from vissl_zoo.evaluation.neighbours import FEWEST, knn
from vissl_zoo.views import ViewPipeline

TITLE = "test-time choice of a crop by κ"
NEEDS = {"labels", "kappa", "train"}
_EPOCHS = "(ImageNet-100; 100, 200 and 500 epochs)"
PAPER = {
    "test_time.linear.clean": f"0.7332, 0.7674, 0.7748 {_EPOCHS}",
    "test_time.linear.highest_kappa.mean": f"0.7351, 0.7736, 0.7761 {_EPOCHS}",
    "test_time.linear.highest_kappa.std": f"0.0043, 0.0004, 0.0017 {_EPOCHS}",
    "test_time.kappa.clean": f"867.71, 811.47, 848.23 {_EPOCHS}",
    "test_time.kappa.highest_kappa.mean": f"917.81, 852.15, 893.12 {_EPOCHS}",
    "test_time.kappa.highest_kappa.std": f"0.36, 0.42, 0.24 {_EPOCHS}",
}
CHOICES = ("one_crop", "highest_kappa", "mean_embedding", "kappa_weighted")


@dataclass(frozen=True)
class Options:
    """How many images and crops; each image costs crops × repeats forward passes, 90 by default."""

    images: Count = 500
    """Labelled test images, drawn by the seed."""
    crops: Count = 30
    """Random crops of each image, among which κ chooses."""
    repeats: Count = 3
    """How often all of it is done with new crops, for mean and standard deviation."""
    scale: Annotated[tuple[float, float], Within(0, 1, above=True)] = (0.08, 1.0)
    """Area of a crop as a fraction of the image's; the paper leaves it open, here it is its linear evaluation's."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Top-1 by kNN and linear, and mean κ: of the clean crop, and of each choice with its deviation."""
    if options.scale[0] > options.scale[1]:
        raise UserError(f"--test-time.scale must be two numbers, the smaller first, not {options.scale}")
    chosen = sample_images(evaluation, options.images, np.flatnonzero(evaluation.test_labels >= 0))
    if (evaluation.train_labels >= 0).sum() < FEWEST or not len(chosen):
        reason = f"fewer than {FEWEST} labelled training images, or no labelled test image"
        yield "test_time.knn", Undefined(reason)
        return
    yield "test_time.images", len(chosen)
    repeats = [choose_crops(evaluation, options, chosen, step) for step in range(options.repeats)]
    clean = evaluation.test_features.embedding[chosen]
    asked = np.stack([clean, *(embedding[name] for embedding, _ in repeats for name in CHOICES)])
    labels, drawn = evaluation.test_labels[chosen], {}
    for classifier, classify in (("knn", classify_by_knn), ("linear", classify_linearly)):
        predictions = classify(evaluation, asked.reshape(-1, asked.shape[-1]))
        if isinstance(predictions, Undefined):
            yield f"test_time.{classifier}", predictions
            continue
        top1 = (predictions.reshape(asked.shape[:2]) == labels).mean(axis=1)
        drawn[classifier] = {"clean": top1[0]}
        for name, values in zip(CHOICES, top1[1:].reshape(options.repeats, -1).T, strict=True):
            drawn[classifier][name] = over_repeats(values)
        yield f"test_time.{classifier}", drawn[classifier]
    yield "test_time.kappa.clean", evaluation.test_features.kappa[chosen].mean(dtype=np.float64)
    for name in ("one_crop", "highest_kappa"):
        yield f"test_time.kappa.{name}", over_repeats(np.array([kappa[name] for _, kappa in repeats]))
    caption = (
        f"Top-1 of {len(chosen)} test images by their clean crop (dashed) and by {options.crops} random crops: mean "
        f"and standard deviation of {options.repeats} repeats."
    )
    evaluation.save_figure(_draw(drawn), "test_time.png", caption)


def classify_by_knn(evaluation: Evaluation, queries: np.ndarray) -> np.ndarray:
    """Classes (Q,) of embeddings (Q, F), with the k that the training images alone choose, the kNN protocol's."""
    known = evaluation.train_labels >= 0
    bank, labels = evaluation.train_features.embedding[known], evaluation.train_labels[known]
    unused = np.zeros(len(queries), dtype=labels.dtype)  # `knn` judges its predictions; here they are later
    return knn(bank, labels, queries, unused, seed=evaluation.seed).predictions


def classify_linearly(evaluation: Evaluation, queries: np.ndarray) -> np.ndarray | Undefined:
    """Classes (Q,) of embeddings (Q, F), by the linear protocol's classifier."""
    result = linear_predictions(evaluation)
    if isinstance(result, Undefined):
        return result
    return result.classifier.names[result.classifier.scores(queries).argmax(1)]


def choose_crops(
    evaluation: Evaluation, options: Options, chosen: np.ndarray, step: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """One repeat: embeddings (n, F) by each of `CHOICES`, and the mean κ of the crops that were taken."""
    changes = {"scale": options.scale, "ratio": ViewPipeline.ratio, "repeat": step}
    pipeline = plain_pipeline(evaluation, options.crops, **changes)
    embeddings: dict[str, list[np.ndarray]] = {name: [] for name in CHOICES}
    kappas: dict[str, list[np.ndarray]] = {"one_crop": [], "highest_kappa": []}
    for views in evaluation.views(chosen, pipeline, f"crops, {step + 1} of {options.repeats}"):
        for name, embedding in combine(views.embedding, views.kappa).items():
            embeddings[name].append(embedding)
        kappas["one_crop"].append(views.kappa[0])
        kappas["highest_kappa"].append(views.kappa.max(axis=0))
    return (
        {name: np.concatenate(parts) for name, parts in embeddings.items()},
        {name: float(np.concatenate(parts).mean(dtype=np.float64)) for name, parts in kappas.items()},
    )


def combine(embedding: np.ndarray, kappa: np.ndarray) -> dict[str, np.ndarray]:
    """V views of B images, (V, B, F) and (V, B), to one embedding (B, F) by each of `CHOICES`; view 0 is the one crop.

    Σ κμ is scaled to the mean length of the image's V embeddings: kNN does not see it, but a linear classifier has a
    bias.
    """
    surest = kappa.argmax(axis=0)
    share = (kappa / kappa.sum(axis=0))[..., None]
    weighted = (share * unit_length(embedding)).sum(axis=0)
    return {
        "one_crop": embedding[0],
        "highest_kappa": embedding[surest, np.arange(len(surest))],
        "mean_embedding": embedding.mean(axis=0),
        "kappa_weighted": weighted * np.linalg.norm(embedding, axis=-1).mean(axis=0)[:, None],
    }


def over_repeats(values: np.ndarray) -> dict[str, object]:
    """Mean and standard deviation (of a sample, R - 1) of R repeats; one repeat has no deviation."""
    std = values.std(ddof=1) if len(values) > 1 else Undefined("there is only one repeat")
    return {"mean": values.mean(), "std": std}


def _draw(found: dict[str, dict]) -> Figure:
    """Top-1 of each choice with its deviation, by classifier; the clean crop is a line."""
    figure = new_figure(5.6, 2.8)
    axes = figure.subplots()
    names = {"knn": ("kNN", SURE), "linear": ("linear", UNSURE)}
    for place, (classifier, values) in enumerate(found.items()):
        label, colour = names[classifier]
        axes.axvline(values["clean"], color=colour, lw=1.2, ls="--")
        spread = [values[name] for name in CHOICES]
        deviations = [0.0 if isinstance(s["std"], Undefined) else s["std"] for s in spread]
        y = np.arange(len(CHOICES)) + 0.2 * (place - 0.5 * (len(found) - 1))
        style = {"fmt": "o", "ms": 5, "capsize": 3, "lw": 1.4, "color": colour}
        axes.errorbar([s["mean"] for s in spread], y, xerr=deviations, label=label, **style)
    labels = ("one random crop", "crop of highest κ", "mean of all crops", "κ-weighted mean")
    axes.set_yticks(range(len(CHOICES)), labels)
    axes.set_ylim(len(CHOICES) - 0.5, -0.5)
    axes.set_xlabel("top-1", fontsize=9)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    tidy(axes)
    return figure
