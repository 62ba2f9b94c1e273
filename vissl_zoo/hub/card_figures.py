"""Measured figures as a model card shows them: its tables, and the results that the Hub reads.

The figures are those of a `metrics.json`, of `vissl-zoo evaluate` or of a training's report alike. What was not
measured, or is undefined, has no row and no result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult

# Dotted name in metrics.json, meaning, the Hub's name of the metric if it has one.
FIGURES = (
    ("knn.top1", "kNN top-1 accuracy", "accuracy"),
    ("untrained.knn.top1", "kNN top-1 accuracy before training", None),
    ("linear.top1", "linear top-1 accuracy", "accuracy"),
    ("linear.top5", "linear top-5 accuracy", "top5_accuracy"),
    ("retrieval.recall_at_1", "Recall@1", "recall_at_1"),
    ("retrieval.r_auroc", "R-AUROC: AUROC of κ for Recall@1", "roc_auc"),
    ("uncertainty.knn.aurc", "AURC of κ, kNN", None),
    ("uncertainty.linear.aurc", "AURC of κ, linear", None),
    ("ambiguity.spearman.kappa", "Spearman of uncertainty with the known ambiguity", None),
)
SECTIONS = ("knn", "untrained", "linear", "retrieval", "uncertainty", "ambiguity", "augmentation")
PERCENT = ("top1", "top5", "recall_at_1")
CLASSIFIERS = {"knn": "kNN", "linear": "linear"}
SCORES = {
    "kappa": "κ",
    "norm": "embedding norm",
    "knn_distance": "similarity to neighbours",
    "two_view_cosine": "cosine of two views",
    "max_probability": "max probability (knows labels)",
}
AUGMENTATIONS = {
    "normal": "none",
    "blur": "blur",
    "color_jitter": "color jitter",
    "grayscale": "grayscale",
    "random_crop": "random crop",
}


def lookup(metrics: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name; None where a part of it is missing."""
    here: Any = metrics
    for part in name.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def shown_part(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a metrics.json that a card draws from, to be kept beside shipped weights."""
    about = ("data", "split", "images")
    return {key: metrics[key] for key in (*about, *SECTIONS) if metrics.get(key) is not None}


def figure_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(meaning, value) of each of `FIGURES` that was measured."""
    rows = []
    for name, meaning, _ in FIGURES:
        value, neighbours = lookup(metrics, name), lookup(metrics, "knn.k")
        if _number(value) is None:
            continue
        if name == "knn.top1" and neighbours is not None:
            meaning += f" (k = {neighbours})"
        rows.append(
            (meaning, f"{value:.2%}".replace("%", " %") if name.endswith(PERCENT) else _with_interval(value))
        )
    return rows


def auroc_table(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of AUROCs: a row a score, a column a classifier; empty if none was measured."""
    columns = [by for by in CLASSIFIERS if lookup(metrics, f"uncertainty.{by}.auroc")]
    rows = []
    for score, text in SCORES.items():
        areas = [lookup(metrics, f"uncertainty.{by}.auroc.{score}") for by in columns]
        shown = ["–" if _number(area) is None else _with_interval(area) for area in areas]
        if {*shown} - {"–"}:
            rows.append([text, *shown])
    return [f"{CLASSIFIERS[by]} correctness" for by in columns], rows


def augmentation_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(augmentation, mean ± standard deviation of κ)."""
    found = [(text, lookup(metrics, f"augmentation.{name}")) for name, text in AUGMENTATIONS.items()]
    return [
        (text, f"{f['mean']:.4g} ± {f['std']:.3g}") for text, f in found if f and f.get("mean") is not None
    ]


def eval_results(metrics: Mapping[str, Any], data: str, dataset: str | None) -> list[EvalResult]:
    """The figures in the form of the Hub's model-index.

    Args:
        metrics: what was measured.
        data: name or path of the images.
        dataset: the data set's name on the Hub, if it has one.
    """
    shown = data_name(data)
    about = {
        "task_type": "image-classification",
        "dataset_type": dataset or shown.lower(),
        "dataset_name": shown,
        "dataset_split": metrics.get("split"),
    }
    found = [(meaning, metric, lookup(metrics, name)) for name, meaning, metric in FIGURES if metric]
    for by, text in CLASSIFIERS.items():
        area = lookup(metrics, f"uncertainty.{by}.auroc.kappa")
        found.append((f"AUROC of κ for {text} correctness", "roc_auc", area))
    return [
        EvalResult(metric_type=kind, metric_name=text, metric_value=round(number, 4), **about)
        for text, kind, value in found
        if (number := _number(value)) is not None
    ]


def data_name(data: str) -> str:
    """What to call a data set: its name on the Hub as it is, of a path on somebody's disk the last part."""
    path = PurePath(data)
    return path.name if path.is_absolute() or data.startswith(("./", "../", "~")) else data


def _number(value: Any) -> float | None:
    """A figure without its interval."""
    return value.get("value") if isinstance(value, Mapping) else value


def _with_interval(value: Any) -> str:
    """A figure, and where it has them its interval and its p."""
    text = f"{_number(value):.3f}"
    if not isinstance(value, Mapping) or value.get("ci_low") is None:
        return text
    text += f" ({value['ci_low']:.3f} to {value['ci_high']:.3f})"
    return text if value.get("p_value") is None else f"{text}, p = {value['p_value']:.2g}"
