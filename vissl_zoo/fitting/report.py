"""What a fitted κ is worth on images that the fit has not seen, beside scores that need no training.

With labels: AUROC for the correctness of kNN, by the protocols of `vissl-zoo evaluate`. Without: nats of likelihood
that κ(x) wins over one κ for all, and the rank correlation of κ with the agreement of views.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from vissl_zoo.data import ImageTable
from vissl_zoo.evaluation import figures
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.measures import correlation
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.evaluation.run import run_protocols, write_results
from vissl_zoo.fitting.kappa import HELD_OUT, Fitted
from vissl_zoo.inference import Loaded

FEWEST_TO_SPLIT = 100  # labelled images without a test split: below that a tenth of them measures nothing
BANK = 4  # images to find neighbours among, for each one measured
SCORES = {
    "kappa": "κ",
    "norm": "embedding norm",
    "knn_distance": "similarity to neighbours",
    "two_view_cosine": "cosine of two views",
    "max_probability": "maximum probability of kNN (knows labels)",
}


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


def fit_figures(fitted: Fitted) -> dict[str, Any]:
    """What the fit says of itself, on its held-out images: `fit_kappa.*` of metrics.json; log-likelihoods in nats."""
    fit = fitted.fit
    ranks = correlation(fit.kappa, fit.agreement, ranks=True)
    return {
        "images": fitted.images,
        "held_out_images": fitted.held_out,
        "views": fitted.views,
        "dim": fitted.model.kappa_head.latent_dim,
        "step": fit.step,
        "log_likelihood": fit.log_likelihood,
        "constant_log_likelihood": fit.constant_log_likelihood,
        "gain": fit.log_likelihood - fit.constant_log_likelihood,
        "spearman_agreement": None if ranks is None else ranks.value,
    }


def write_report(
    fitted: Fitted,
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
        fitted: the model and its fit.
        loaded: the name and the image size of its backbone.
        train: the images it was fitted to.
        test: other images, or None.
        folder: where the files go.
        command: shown on the page.
        limit: images measured at most; neighbours are looked for among four times as many.
        seed: of every choice.
        workers: that decode images.

    Returns:
        The metrics by dotted name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bank = None if test is None else sample(train, BANK * limit, seed)
    shown = sample(train if test is None else test, limit, seed)
    model, size = fitted.model, loaded.image_size
    evaluation = Evaluation(model, None, bank, shown, size, folder, seed=seed, workers=workers)
    protocols = ["uncertainty", "gallery"]
    options = {name: PROTOCOLS[name].Options() for name in protocols}
    options["uncertainty"] = PROTOCOLS["uncertainty"].Options(linear=False)
    results = run_protocols(evaluation, protocols, options)
    names, pictures = results.sections["uncertainty"]
    for key, value in fit_figures(fitted).items():
        results.add(f"fit_kappa.{key}", value)
        names.append(f"fit_kappa.{key}")
    figures.kappa_histogram(evaluation.test_features.kappa, None, folder / "kappa.png")
    pictures.append(("kappa.png", "Histogram of κ"))
    write_results(evaluation, results, loaded.name, command)
    return results.flat()


def summary(metrics: dict[str, Any], results_of: str) -> str:
    """The metrics as a table to print; `results_of` says which images they were measured on."""
    lines = [
        f"fitted to {metrics['fit_kappa.images']} images, {metrics['fit_kappa.views']} views of each; on "
        f"{metrics['fit_kappa.held_out_images']} of them, held out but for the choice of the step:",
        f"  log-likelihood of a view, in nats: {metrics['fit_kappa.log_likelihood']:.3f} with a κ for each image, "
        f"{metrics['fit_kappa.constant_log_likelihood']:.3f} with one κ for all: {metrics['fit_kappa.gain']:+.3f}",
        f"  Spearman of κ with the agreement of views: {_number(metrics['fit_kappa.spearman_agreement'])}",
    ]
    scores = auroc_rows(metrics)
    if scores:
        lines += [
            "",
            f"AUROC for the correctness of kNN ({metrics['uncertainty.knn.accuracy']:.3f}) {results_of}:",
        ]
        lines += [f"  {name:42} {value}" for name, value in scores]
    return "\n".join(lines)


def auroc_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """(score, AUROC with its 95% interval) of each score, κ first; empty without labels."""
    rows = []
    for key, name in SCORES.items():
        area = {k: metrics.get(f"uncertainty.knn.auroc.{key}.{k}") for k in ("value", "ci_low", "ci_high")}
        if area["value"] is not None:
            rows.append((name, f"{area['value']:.3f} ({area['ci_low']:.3f} to {area['ci_high']:.3f})"))
    return rows


def render_card(
    fitted: Fitted, loaded: Loaded, metrics: dict[str, Any] | None, data: str, command: str
) -> str:
    """The README.md of the export: what κ is here, what it is worth, and the command that made it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vissl_zoo.fitting", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.get_template("card.md.jinja").render(
        name=loaded.name,
        record=_record(loaded, data, command),
        size=loaded.image_size,
        head=fitted.model.kappa_head,
        categorical=getattr(fitted.model, "prototype_head", None) is not None,
        fit=fit_figures(fitted),
        accuracy=metrics and metrics.get("uncertainty.knn.accuracy"),
        scores=auroc_rows(metrics) if metrics else [],
        data=data,
        command=command,
    )


def _record(loaded: Loaded, data: str, command: str) -> str:
    """How the model came to be, as `vissl-zoo publish` reads it from the card's metadata; JSON is YAML, too."""
    method = f"κ fitted to {loaded.name}"
    return json.dumps({"method": method, "data": data, "image_size": loaded.image_size, "command": command})


def sample(table: ImageTable, limit: int, seed: int) -> ImageTable:
    """At most `limit` images, drawn by the seed, in their order."""
    if len(table) <= limit:
        return table
    return table.select(np.sort(np.random.default_rng(seed).permutation(len(table))[:limit]))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
