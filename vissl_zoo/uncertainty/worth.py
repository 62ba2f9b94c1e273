"""What a fitted κ is worth on images that the fit has not seen, beside scores that need no training.

With labels: AUROC for the correctness of kNN, by the protocols of `vissl-zoo evaluate`. Without: nats of cross-entropy
that κ(x) wins over one κ for all, and the rank correlation of κ with the target p.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from vissl_zoo.data import ImageTable
from vissl_zoo.evaluation import figures
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.correlation import correlation
from vissl_zoo.evaluation.evaluation_run import run_protocols, write_results
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.hub import Record
from vissl_zoo.hub.card_figures import auroc_table
from vissl_zoo.inference import Loaded
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.uncertainty.fitted_kappa import HELD_OUT
from vissl_zoo.uncertainty.head_fit import Fit

FEWEST_TO_SPLIT = 100  # labelled images without a test split: below that a tenth of them measures nothing
BANK = 4  # images to find neighbours among, for each one measured


def split_tables(
    train: ImageTable | None, test: ImageTable, seed: int
) -> tuple[ImageTable, ImageTable | None]:
    """(images to fit to, images to measure on): the splits if there are two, else a tenth is held out if labelled.

    Where the second is None, the measures that need no label are taken on the images that the fit itself held out.
    """
    if train is not None:
        return train, test
    if test.labels is None or len(test) < FEWEST_TO_SPLIT:
        return test, None
    order = np.random.default_rng(seed).permutation(len(test))
    count = round(HELD_OUT * len(test))
    return test.select(np.sort(order[count:])), test.select(np.sort(order[:count]))


def sample(table: ImageTable, limit: int, seed: int) -> ImageTable:
    """At most `limit` images, drawn by the seed, in their order."""
    if len(table) <= limit:
        return table
    return table.select(np.sort(np.random.default_rng(seed).permutation(len(table))[:limit]))


def fit_figures(model: nn.Module) -> dict[str, Any]:
    """What the fit says of itself, on its held-out images: `fit_kappa.*` of metrics.json; cross-entropies in nats."""
    fit = cast(Fit, model.kappa_fit)
    ranks = correlation(fit.kappa, fit.aim, ranks=True)
    return {
        "images": fit.images,
        "held_out_images": fit.held_out,
        "views": fit.views,
        "dim": cast(KappaHead, model.kappa_head).latent_dim,
        "step": fit.step,
        "target": fit.target,
        "cross_entropy": fit.cross_entropy,
        "constant_cross_entropy": fit.constant_cross_entropy,
        "gain": fit.constant_cross_entropy - fit.cross_entropy,
        "spearman_target": None if ranks is None else ranks.value,
    }


def measure(
    model: nn.Module,
    loaded: Loaded,
    train: ImageTable,
    test: ImageTable | None,
    folder: Path,
    *,
    command: str,
    limit: int,
    seed: int,
    workers: int | None,
) -> dict[str, Any]:
    """Measure the model, and write metrics.json, predictions.parquet, figures and index.html.

    Args:
        model: with its fitted head.
        loaded: the name and the image size of its backbone.
        train: the images it was fitted to.
        test: other images, or None.
        folder: where the files go.
        command: shown on the page.
        limit: images measured at most; neighbours are looked for among four times as many.
        seed: of every choice.
        workers: that decode images.

    Returns:
        What metrics.json says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bank = None if test is None else sample(train, BANK * limit, seed)
    shown = sample(train if test is None else test, limit, seed)
    evaluation = Evaluation(model, None, bank, shown, loaded.image_size, folder, seed=seed, workers=workers)
    options = {"uncertainty": PROTOCOLS["uncertainty"].Options(linear=False)}
    options["gallery"] = PROTOCOLS["gallery"].Options()
    results = run_protocols(evaluation, list(options), options)
    names, pictures = results.sections["uncertainty"]
    for name, value in fit_figures(model).items():
        results.add(f"fit_kappa.{name}", value)
        names.append(f"fit_kappa.{name}")
    evaluation.save_figure(
        figures.histogram(cast(np.ndarray, evaluation.test_features.kappa)), "kappa.png", "Histogram of κ"
    )
    pictures.append(evaluation.figures[-1])
    return write_results(evaluation, results, loaded.name, command)


def summary(metrics: dict[str, Any], measured_on: str) -> str:
    """The metrics, nested, as a table to print; `measured_on` says which images they were measured on."""
    fit = metrics["fit_kappa"]
    ranks = fit["spearman_target"]
    lines = [
        f"fitted to {fit['images']} images, {fit['views']} views of each; on {fit['held_out_images']} of them, held "
        "out but for the choice of the step:",
        f"  cross-entropy with the target, in nats: {fit['cross_entropy']:.3f} with a κ for each image, "
        f"{fit['constant_cross_entropy']:.3f} with one κ for all",
        f"  Spearman of κ with the target: {'undefined' if ranks is None else f'{ranks:.3f}'}",
    ]
    _, areas = auroc_table(metrics)
    if areas:
        accuracy = metrics["uncertainty"]["knn"]["accuracy"]
        lines += ["", f"AUROC for the correctness of kNN ({accuracy:.3f}) {measured_on}:"]
    return "\n".join(lines + [f"  {score:34} {area}" for score, area in areas])


def card_record(fit: Fit, loaded: Loaded, data: str, command: str) -> Record:
    """How the model came to be, for its card."""
    note = (
        f"The weights of {loaded.name} are unchanged. κ alone was fitted, without labels, to the target "
        f"`{fit.target}` on {fit.images} images and {fit.views} augmented views of each. On {fit.held_out} of the "
        f"images, held out but for the choice of the step, the cross-entropy with the target is "
        f"{fit.cross_entropy:.3f} nats, and {fit.constant_cross_entropy:.3f} nats with one κ for all images."
    )
    return Record(f"the embedding of {loaded.name}", data, loaded.image_size, command, note)
