"""Measured figures as a model card shows them: tables, and the evaluation results that the Hub reads.

A figure that was not measured, or is undefined, has no row and no result.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult

# Keys of a run's report/metrics.json that a reader of the card asks for, with their meaning.
FIGURES = {
    "knn_top1": "kNN top-1 accuracy",
    "knn_top1_untrained": "kNN top-1 accuracy before training",
    "auroc_kappa_knn": "AUROC of κ for kNN correctness",
    "spearman_uncertainty_ambiguity": "Spearman of uncertainty with the known ambiguity",
}
# Fields of an evaluation's metrics.json: (dotted name, meaning, the Hub's name of the metric).
ACCURACIES = (
    ("knn.top1", "kNN top-1 accuracy", "accuracy"),
    ("linear.top1", "linear top-1 accuracy", "accuracy"),
    ("linear.top5", "linear top-5 accuracy", "top5_accuracy"),
    ("retrieval.recall_at_1", "Recall@1", "recall_at_1"),
)
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
# What of an evaluation the card shows, to be kept beside shipped weights.
_KEPT = (
    *(
        "data",
        "split",
        "images",
        "knn.k",
        "retrieval.r_auroc",
        "uncertainty.knn.aurc",
        "uncertainty.linear.aurc",
    ),
    *(name for name, _, _ in ACCURACIES),
    *(f"uncertainty.{by}.auroc.{score}" for by in ("knn", "linear") for score in SCORES),
    *(f"augmentation.{name}" for name in AUGMENTATIONS),
)


def kept(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an evaluation that a card shows."""
    found: dict[str, Any] = {}
    for name in _KEPT:
        value = lookup(evaluation, name)
        if value is None:
            continue
        *path, last = name.split(".")
        here = found
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return found


def lookup(metrics: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name; None where a part of it is missing."""
    here: Any = metrics
    for part in name.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def report_rows(metrics: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """(meaning, value) of what a training measured at its end."""
    found = metrics or {}
    return [(text, f"{found[key]:.3f}") for key, text in FIGURES.items() if found.get(key) is not None]


def accuracy_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(meaning, value) of an evaluation's accuracies, and of R-AUROC."""
    rows = []
    for name, text, _ in ACCURACIES:
        value = lookup(evaluation, name)
        if value is not None:
            k = lookup(evaluation, "knn.k") if name == "knn.top1" else None
            rows.append((text if k is None else f"{text} (k = {k})", f"{100 * value:.2f} %"))
    r_auroc = lookup(evaluation, "retrieval.r_auroc")
    if r_auroc is not None:
        rows.append(("R-AUROC: AUROC of κ for Recall@1", _area(r_auroc)))
    for by in ("knn", "linear"):
        aurc = lookup(evaluation, f"uncertainty.{by}.aurc")
        if aurc is not None:
            rows.append((f"AURC of κ, {_BY[by]}", f"{aurc:.4f}"))
    return rows


_BY = {"knn": "kNN", "linear": "linear"}


def auroc_table(evaluation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of AUROCs: a row a score, a column a classifier; empty if none was measured."""
    columns = [by for by in _BY if lookup(evaluation, f"uncertainty.{by}.auroc")]
    rows = []
    for score, text in SCORES.items():
        areas = [lookup(evaluation, f"uncertainty.{by}.auroc.{score}") for by in columns]
        if any(area is not None for area in areas):
            rows.append([text, *("–" if area is None else _area(area) for area in areas)])
    return [f"{_BY[by]} correctness" for by in columns], rows


def augmentation_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(augmentation, mean ± standard deviation of κ)."""
    found = [(text, lookup(evaluation, f"augmentation.{name}")) for name, text in AUGMENTATIONS.items()]
    return [
        (text, f"{f['mean']:.4g} ± {f['std']:.3g}") for text, f in found if f and f.get("mean") is not None
    ]


def eval_results(evaluation: Mapping[str, Any], dataset: str | None) -> list[EvalResult]:
    """The figures in the form of the Hub's model-index.

    Args:
        evaluation: of `vissl-zoo evaluate`.
        dataset: the data set's name on the Hub, if it has one.
    """
    shown = data_name(evaluation["data"])
    about = {
        "task_type": "image-classification",
        "dataset_type": dataset or shown.lower(),
        "dataset_name": shown,
        "dataset_split": evaluation.get("split"),
    }
    found = [(text, kind, lookup(evaluation, name)) for name, text, kind in ACCURACIES]
    for by, name in _BY.items():
        area = lookup(evaluation, f"uncertainty.{by}.auroc.kappa")
        found.append((f"AUROC of κ for {name} correctness", "roc_auc", area and area["value"]))
    r_auroc = lookup(evaluation, "retrieval.r_auroc")
    found.append(("R-AUROC of κ", "roc_auc", r_auroc and r_auroc["value"]))
    return [
        EvalResult(metric_type=kind, metric_name=text, metric_value=round(value, 4), **about)
        for text, kind, value in found
        if value is not None
    ]


def data_name(data: str) -> str:
    """What to call a data set: its name on the Hub as it is, of a path on somebody's disk the last part."""
    path = PurePath(data)
    return path.name if path.is_absolute() or data.startswith(("./", "../", "~")) else data


def _area(area: Mapping[str, Any]) -> str:
    if area.get("ci_low") is None:
        return f"{area['value']:.3f}"
    text = f"{area['value']:.3f} ({area['ci_low']:.3f} to {area['ci_high']:.3f})"
    return text if area.get("p_value") is None else f"{text}, p = {area['p_value']:.2g}"
