"""Run protocols on one model and write what they found: metrics.json, predictions.parquet, PNG figures, index.html."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from datasets import Dataset

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.protocols import PROTOCOLS


@dataclass
class Results:
    """What the protocols found.

    Attributes:
        metrics: nested by dotted name; a measure that is undefined is None.
        reasons: why, by dotted name.
        left_out: why a whole protocol was left out, by its name.
        sections: (dotted names, figures) of each protocol that ran, by its name.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    sections: dict[str, tuple[list[str], list[tuple[str, str]]]] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        """Put one value in its place; numbers of NumPy become plain ones, `Undefined` and NaN become None."""
        *path, last = name.split(".")
        here = self.metrics
        for part in path:
            here = here.setdefault(part, {})
        here[last] = self._plain(name, value)

    def flat(self) -> dict[str, Any]:
        """The values by dotted name."""
        return _flat(self.metrics)

    def _plain(self, name: str, value: Any) -> Any:
        if isinstance(value, Undefined):
            self.reasons[name] = value.reason
            return None
        if isinstance(value, Mapping):
            return {k: self._plain(f"{name}.{k}", v) for k, v in value.items()}
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not np.isfinite(value):
            self.reasons[name] = f"it came out as {value}"
            return None
        return value


def run_protocols(evaluation: Evaluation, protocols: Sequence[str], options: Mapping[str, Any]) -> Results:
    """Run the named protocols in order; one that the data or the model cannot serve is left out, with a reason.

    Args:
        evaluation: the model and the images.
        protocols: names of `PROTOCOLS`.
        options: an `Options` for each of them.
    """
    results = Results()
    # Other protocols train the linear classifier if they come first: as it was asked for, and only once.
    if "linear" in options:
        evaluation.memo["linear_options"] = options["linear"]
    for name in protocols:
        protocol = PROTOCOLS[name]
        missing = [why for need in sorted(protocol.NEEDS) if (why := _lacks(evaluation, need))]
        if missing:
            results.left_out[name] = "; ".join(missing)
            continue
        names, drawn = [], len(evaluation.figures)
        for key, value in protocol.evaluate(evaluation, options[name]):
            results.add(key, value)
            names.append(key)
        results.sections[name] = names, evaluation.figures[drawn:]
    return results


GENERATOR = '<meta name="generator" content="vissl-zoo evaluate">'
"""Stands in every page this writes, so that an earlier one is known for ours."""


def clear_results(folder: Path) -> None:
    """Remove what an earlier `write_results` left in a folder, its figures too; other files stay."""
    page = folder / "index.html"
    if not page.is_file() or GENERATOR not in (text := page.read_text(errors="replace")):
        return
    # Figures first and the page last: cut off in between, the rest is still known for ours.
    for name in (
        *re.findall(r'<img src="([^"/]+\.png)"', text),
        "predictions.parquet",
        "metrics.json",
        page.name,
    ):
        (folder / name).unlink(missing_ok=True)


def write_results(evaluation: Evaluation, results: Results, name: str, command: str) -> None:
    """Write metrics.json, predictions.parquet and index.html into the evaluation's folder."""
    folder = evaluation.output_dir
    notes = {"reasons": results.reasons, "left_out": results.left_out}
    images = len(evaluation.test_features.rows)
    corrupt = len(evaluation.test) - images
    about = {"model": name, "data": evaluation.test.path, "split": evaluation.test.split}
    written = {**about, "images": images, "corrupt_images": corrupt, **results.metrics}
    (folder / "metrics.json").write_text(json.dumps({**written, **notes}, indent=1, allow_nan=False) + "\n")
    _write_predictions(evaluation)
    paper = {key: text for protocol in PROTOCOLS.values() for key, text in protocol.PAPER.items()}
    environment = jinja2.Environment(loader=jinja2.PackageLoader("vissl_zoo.evaluation", ""), autoescape=True)
    page = environment.get_template("evaluation.html.jinja").render(
        generator=GENERATOR,
        name=name,
        command=command,
        data=evaluation.test.path,
        split=evaluation.test.split,
        images=images,
        corrupt=corrupt,
        sections=[
            (PROTOCOLS[protocol].TITLE, [row for key in names for row in _rows(results, key, paper)], figures)
            for protocol, (names, figures) in results.sections.items()
        ],
        reasons=results.reasons,
        left_out={PROTOCOLS[key].TITLE: why for key, why in results.left_out.items()},
    )
    (folder / "index.html").write_text(page)


def _write_predictions(evaluation: Evaluation) -> None:
    """One row per test image: row, path, label, predictions of the classifiers, κ and uncertainty."""
    features = evaluation.test_features
    columns: dict[str, Any] = {
        "row": features.rows,
        "path": [evaluation.test.name(row) for row in features.rows],
        "label": None if evaluation.test.labels is None else evaluation.test_labels,
        "knn_pred": evaluation.predictions.get("knn_pred"),
        "linear_pred": evaluation.predictions.get("linear_pred"),
        "kappa": features.kappa,
        "uncertainty": features.uncertainty,
    }
    columns |= {k: v for k, v in evaluation.predictions.items() if k not in columns}
    blank = [None] * len(features.rows)
    table = Dataset.from_dict({k: blank if v is None else v for k, v in columns.items()})
    table.to_parquet(evaluation.output_dir / "predictions.parquet")


def _lacks(evaluation: Evaluation, need: str) -> str | None:
    """Why the evaluation cannot meet a protocol's need, or None if it can."""
    if need == "kappa":
        has = getattr(evaluation.model, "kappa_head", None) is not None
        return None if has else "the model has no κ head"
    if need == "train":
        return None if evaluation.train is not None else "there is no training split to learn from"
    tables = [evaluation.test] if evaluation.train is None else [evaluation.test, evaluation.train]
    return None if all(table.labels is not None for table in tables) else "the images have no labels"


def _rows(results: Results, key: str, paper: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, value, the paper's) of one result: a row for each number, but one for a value with its interval."""
    value = results.metrics
    for part in key.split("."):
        value = value[part]
    if not isinstance(value, Mapping):
        return [(key, _shown(value), paper.get(key, ""))]
    if value.keys() >= {"value", "ci_low", "ci_high", "p_value"}:
        known = paper.get(key) or paper.get(f"{key}.value", "")
        if value["value"] is None:
            return [(key, "undefined", known)]
        interval = f"{_shown(value['ci_low'])} to {_shown(value['ci_high'])}, p = {_shown(value['p_value'])}"
        return [(key, f"{_shown(value['value'])} ({interval})", known)]
    return [(name, _shown(v), paper.get(name, "")) for name, v in _flat(value, f"{key}.").items()]


def _shown(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
