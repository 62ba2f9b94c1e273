"""Run protocols on one model, and write what they found: metrics.json, predictions.parquet, figures, index.html."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vissl_zoo.cli import check_numbers
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.evaluation.context import NO_KAPPA, Evaluation, Undefined
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.evaluation.protocols.ambiguity import known_ambiguity
from vissl_zoo.inference import ModelOrName, load_model, open_tables
from vissl_zoo.output import flat, short_number, write_text, write_whole


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
        return flat(self.metrics)

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
    figures = re.findall(r'<img src="([^"/]+\.png)"', text)
    for name in (*figures, "predictions.parquet", "metrics.json", page.name):
        (folder / name).unlink(missing_ok=True)


class Summary(NamedTuple):
    """What the training report puts on top of the page: notes, a table of (name, trained, untrained), and figures."""

    notes: Sequence[str]
    rows: Sequence[tuple[str, str, str]]
    figures: Sequence[tuple[str, str]]


def write_results(
    evaluation: Evaluation, results: Results, name: str, command: str, summary: Summary | None = None
) -> dict[str, Any]:
    """Write metrics.json, predictions.parquet and index.html into the evaluation's folder, if it has one.

    Args:
        evaluation: what was evaluated.
        results: what was found.
        name: of the model.
        command: that made it, for the page.
        summary: shown before all else.

    Returns:
        What metrics.json holds.
    """
    images = len(evaluation.test_features.rows)
    about = {
        "model": name,
        "data": evaluation.test.path,
        "split": evaluation.test.split,
        "images": images,
        "corrupt_images": len(evaluation.test) - images,
    }
    notes = {"reasons": results.reasons, "left_out": results.left_out}
    metrics = {**about, **results.metrics, **notes}
    folder = evaluation.output_dir
    if folder is None:
        return metrics
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    _write_predictions(evaluation, folder / "predictions.parquet")
    paper = {key: text for protocol in PROTOCOLS.values() for key, text in protocol.PAPER.items()}
    environment = jinja2.Environment(loader=jinja2.PackageLoader("vissl_zoo.evaluation", ""), autoescape=True)
    page = environment.get_template("evaluation.html.jinja").render(
        generator=GENERATOR,
        command=command,
        **about,
        summary=summary,
        sections=[
            (PROTOCOLS[protocol].TITLE, [row for key in names for row in _rows(results, key, paper)], figures)
            for protocol, (names, figures) in results.sections.items()
        ],
        reasons=results.reasons,
        left_out={PROTOCOLS[key].TITLE: why for key, why in results.left_out.items()},
    )
    write_text(folder / "index.html", page)
    return metrics


def evaluate(
    model: ModelOrName,
    data: str | os.PathLike,
    *,
    protocols: Sequence[str] | None = None,
    output_dir: str | os.PathLike | None = None,
    train_split: str = "train",
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
    random_init: bool = False,
    device: torch.device | str | None = None,
    seed: int = 0,
    workers: int | None = None,
    exact: bool = False,
    command: str = "vissl_zoo.evaluate",
    **options: Any,
) -> dict[str, Any]:
    """Measure a model on a data set: what `vissl-zoo evaluate` writes to metrics.json.

    Args:
        model: a model, measured where it lies, or what `load_model` takes.
        data: a Hub data set, a folder of images, parquet files, or "shapes"; see `open_images`.
        protocols: which of `PROTOCOLS` to run, in this order; by default all.
        output_dir: where metrics.json, predictions.parquet, figures and index.html go; nothing is written if None.
        train_split: the split that classifiers learn from, or a part of it.
        split: the split to measure on; by default `test` or `validation`, the first that has labels.
        image_column, label_column: found by their types if not given.
        image_size: side of the images in pixels; by default the model's own.
        random_init: leave the weights of a model that is given by its name random, for a floor to compare with.
        device: where such a model runs; by default the GPU, if there is one.
        seed: of every random choice.
        workers: threads that decode images.
        exact: plain float32, the same bits in every run on a machine.
        command: shown on the page.
        **options: of a protocol, under its name: an instance of its `Options`, or a dict of their fields.

    Raises:
        UserError: one line about the model, the data, a protocol or an option.
    """
    protocols = tuple(PROTOCOLS) if protocols is None else tuple(protocols)
    if unknown := [name for name in (*protocols, *options) if name not in PROTOCOLS]:
        raise UserError(f"--protocols: unknown {', '.join(unknown)}; there are: {', '.join(PROTOCOLS)}")
    options = {name: _options(name, options.get(name)) for name in PROTOCOLS}
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_model(model, random_init=random_init, image_size=image_size, device=device)
    columns = {"image_column": image_column, "label_column": label_column}
    train, test = open_tables(os.fspath(data), train_split=train_split, split=split, **columns)
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            clear_results(folder)
        except OSError as error:
            raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
    parts = {"seed": seed, "workers": workers, "exact": exact}
    evaluation = Evaluation(loaded.model, loaded.heads, train, test, loaded.image_size, folder, **parts)
    training = loaded.model.training
    loaded.model.eval()
    try:
        results = run_protocols(evaluation, protocols, options)
    finally:
        loaded.model.train(training)
    return write_results(evaluation, results, loaded.name, command)


def _options(name: str, given: Any) -> Any:
    """A protocol's options, of which a dict may give some."""
    if given is None or isinstance(given, Mapping):
        try:
            given = PROTOCOLS[name].Options(**(given or {}))
        except TypeError as error:
            raise UserError(f"{name}: {first_line(error)}") from error
    check_numbers(given, f"--{name.replace('_', '-')}.")
    return given


def _write_predictions(evaluation: Evaluation, path: Path) -> None:
    """One row per test image: row, path, label, predictions of the classifiers, κ and uncertainty."""
    features = evaluation.test_features
    columns: dict[str, Any] = {
        "row": evaluation.test.rows[features.rows],
        "path": [evaluation.test.name(row) for row in features.rows],
        "label": None if evaluation.test.labels is None else evaluation.test_labels,
        "knn_pred": evaluation.predictions.get("knn_pred"),
        "linear_pred": evaluation.predictions.get("linear_pred"),
        "kappa": features.kappa,
        "uncertainty": features.uncertainty,
    }
    columns |= {k: v for k, v in evaluation.predictions.items() if k not in columns}
    blank = [None] * len(features.rows)
    table = pa.table({k: pa.array(blank if v is None else v) for k, v in columns.items()})
    write_whole(path, lambda unfinished: pq.write_table(table, unfinished))


def _lacks(evaluation: Evaluation, need: str) -> str | None:
    """Why the evaluation cannot meet a protocol's need, or None if it can."""
    if need == "kappa":
        return NO_KAPPA if getattr(evaluation.model, "kappa_head", None) is None else None
    if need == "train":
        return None if evaluation.train is not None else "there is no training split to learn from"
    if need == "ambiguity":
        return (
            "the data do not tell how ambiguous images are" if known_ambiguity(evaluation) is None else None
        )
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
    return [(name, _shown(v), paper.get(name, "")) for name, v in flat(value, f"{key}.").items()]


def _shown(value: Any) -> str:
    return short_number(value) if value is None or isinstance(value, float) else str(value)
