"""The report at the end of a training: kNN, uncertainty and gallery on a sample, beside the untrained model.

Data without labels get what needs none; data that know how ambiguous their images are get that, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from vissl_zoo.data import ImageTable, available_splits, open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.correctness import knn_answers
from vissl_zoo.evaluation.evaluation_run import (
    Results,
    Summary,
    clear_results,
    run_protocols,
    write_results,
)
from vissl_zoo.evaluation.figures import SURE, new_figure, tidy
from vissl_zoo.evaluation.measures import auroc_with_p
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.evaluation.protocols.ambiguity import known_ambiguity, spearman
from vissl_zoo.inference.loading import TEST_SPLITS

HELD_OUT = 0.1  # of the training images, where the data have no other split
REPORTED = ("knn", "uncertainty", "gallery", "ambiguity")


def report_training(
    folder: Path,
    model: nn.Module,
    untrained: nn.Module,
    table: ImageTable,
    *,
    image_size: int,
    split: str | None,
    columns: tuple[str | None, str | None],
    limit: int,
    history: list[dict[str, Any]],
    diagnoses: list[str],
    seconds: Callable[[], float],
    seed: int,
    workers: int | None = None,
    command: str = "train.py",
) -> tuple[dict[str, Any], str]:
    """Measure a trained model beside its untrained self, and draw what it is sure and unsure of.

    Args:
        folder: where metrics.json, predictions.parquet, the figures and index.html go.
        model: the trained model, with `represent`.
        untrained: the same model before training; it is shown the same crops.
        table: the training images.
        image_size: side of the central crop that is looked at.
        split: the split to measure on; None for `test` or `validation`. Where there is none beside the one
            that was trained on, a tenth of that is measured on, or all of it if it has no labels.
        columns: names of the image and the label column, or None.
        limit: most training images looked at; a quarter as many are measured on.
        history: the lines of metrics.jsonl.
        diagnoses: what the training's own watch has to say, shown with the figures.
        seconds: how long the run has taken, asked at the end.
        seed: of every random choice.
        workers: threads that decode images.
        command: that trained the model, for the page.

    Returns:
        What metrics.json holds, and the summary to print.

    Raises:
        UserError: the split cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clear_results(folder)
    bank, measured, about = choose_images(table, split, columns, limit, seed)
    parts = {"image_size": image_size, "seed": seed, "workers": workers, "cache": False}
    evaluation = Evaluation(model, None, bank, measured, output_dir=folder, **parts)
    options = {name: PROTOCOLS[name].Options() for name in REPORTED}
    options["uncertainty"] = replace(options["uncertainty"], linear=False)
    results = run_protocols(evaluation, REPORTED, options)
    cast(Any, untrained).pretrained_cfg = cast(Any, model).pretrained_cfg
    floor = replace(evaluation, model=untrained, output_dir=None, predictions={}, figures=[], memo={})
    for name, value in _of_untrained(floor):
        results.add(name, value)
    results.add("seconds", seconds())
    rows = _rows(results)
    notes = [about, *diagnoses, *_notes(results, evaluation)]
    evaluation.save_figure(_draw_curves(history), "curves.png", "The training, step by step")
    summary = Summary(notes, rows, evaluation.figures[-1:])
    metrics = write_results(evaluation, results, folder.absolute().parent.name, command, summary)
    return metrics, _as_text(rows, notes, folder)


def open_measured(table: ImageTable, split: str | None, **columns: str | None) -> ImageTable | None:
    """The images that a report measures on; None where the training images have to do.

    Args:
        table: the training images.
        split: which images; by default `test` or `validation`, if training does not take them.
        columns: `image_column` and `label_column`, as for `open_images`.

    Raises:
        UserError: as `open_images`; or some of the images are trained on.
    """
    if split is None:
        others = [s for s in available_splits(table.path) if s != table.whole]
        split = next((s for s in TEST_SPLITS if s in others), None)
    measured = None if split is None else open_images(table.path, split=split, **columns)
    if measured is None or measured.is_same_as(table):
        return None
    if shared := measured.shared_with(table):
        raise UserError(
            f"{shared} images of --data.eval-split {measured.split} are also trained on, in {table.split}"
        )
    return measured


def choose_images(
    table: ImageTable, split: str | None, columns: tuple[str | None, str | None], limit: int, seed: int
) -> tuple[ImageTable | None, ImageTable, str]:
    """The images to find neighbours among, if any, those to measure on, and a sentence about these.

    Both are drawn by the seed, in the order of the data.

    Raises:
        UserError: the split does not exist or cannot be read.
    """
    rng = np.random.default_rng(seed)
    measured = open_measured(table, split, image_column=columns[0], label_column=columns[1])
    if measured is not None:
        rows, bank_rows = rng.permutation(len(measured)), rng.permutation(len(table))
        about = f"the split {measured.split!r} of {table.path}"
    elif table.labels is None:  # no bank is needed, and a small folder is shown whole
        measured, rows, bank_rows = table, rng.permutation(len(table)), np.arange(0)
        about = f"the split {table.split!r} of {table.path}, which training saw"
    else:
        order, held_out = rng.permutation(len(table)), max(1, round(HELD_OUT * len(table)))
        measured, rows, bank_rows = table, order[:held_out], order[held_out:]
        about = f"a tenth of the split {table.split!r} of {table.path}, which training saw, without labels"
    rows, bank_rows = np.sort(rows[: max(1, limit // 4)]), np.sort(bank_rows[:limit])
    about = f"Measured on {len(rows)} images: {about}."
    bank = table.select(bank_rows) if table.labels is not None and len(bank_rows) else None
    return bank, measured.select(rows), about


def _of_untrained(floor: Evaluation) -> Iterator[tuple[str, object]]:
    """The same figures of the model before training, the floor that the trained ones are held against."""
    features, answers = floor.test_features, knn_answers(floor)
    yield "untrained.kappa.mean", features.kappa.mean(dtype=np.float64)
    if not isinstance(answers, Undefined):
        correct, known = answers.correct, answers.known
        area = auroc_with_p(features.kappa[known], correct[known], seed=floor.seed)
        one_kind = Undefined("all answers are right, or all are wrong")
        yield "untrained.knn.top1", floor.memo["knn"].top1
        yield "untrained.uncertainty.knn.auroc.kappa", one_kind if area is None else area._asdict()
    ambiguity = known_ambiguity(floor)
    if ambiguity is not None:
        yield "ambiguity.spearman.untrained", spearman(features.uncertainty, ambiguity)


def _rows(results: Results) -> list[tuple[str, str, str]]:
    """The summary's table: (name, trained, untrained), of what was measured of one of the two."""
    found, area, known = results.flat(), "uncertainty.knn.auroc.kappa", "ambiguity.spearman"

    def shown(key: str, form: str) -> str:
        value = found.get(f"{key}.value", found.get(key, ""))  # an AUROC has its value beside others
        if value == "":
            return ""
        return "undefined" if value is None else f"{100 * value:.1f}" if form == "%" else f"{value:{form}}"

    lines = [
        ("κ, mean", "uncertainty.kappa.mean", "untrained.kappa.mean", ".4g"),
        (f"kNN top-1 (k = {found.get('knn.k')}), %", "knn.top1", "untrained.knn.top1", "%"),
        ("AUROC of κ for kNN correctness", area, f"untrained.{area}", ".3f"),
        ("Spearman of uncertainty with ambiguity", f"{known}.kappa", f"{known}.untrained", ".3f"),
        ("  of edge density, no network", "", f"{known}.edge_density", ".3f"),
        ("  of pixel deviation, no network", "", f"{known}.pixel_deviation", ".3f"),
        ("seconds, training and report", "seconds", "", ".0f"),
    ]
    rows = [(name, shown(trained, form), shown(untrained, form)) for name, trained, untrained, form in lines]
    return [row for row in rows if any(row[1:])]


def _notes(results: Results, evaluation: Evaluation) -> list[str]:
    """What the figures leave out, and why."""
    if reason := results.left_out.get("knn") or results.reasons.get("knn.top1"):
        return [f"There is no kNN accuracy and no AUROC: {reason}."]
    unlabelled = int((evaluation.test_labels < 0).sum())
    return [f"{unlabelled} images without a label are left out of kNN and AUROC."] if unlabelled else []


def _as_text(rows: list[tuple[str, str, str]], notes: list[str], folder: Path) -> str:
    width = max(len(row[0]) for row in rows)
    lines = [f"{'':{width}}  {'trained':>9}  {'untrained':>9}"]
    lines += [f"{name:{width}}  {trained:>9}  {untrained:>9}" for name, trained, untrained in rows]
    files = [f"gallery: {folder / 'gallery.png'}", f"report:  {folder / 'index.html'}"]
    return "\n".join([*lines, "", *notes, *files])


def _draw_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and its terms, κ, and the signs of collapse against the step."""
    log = {name: np.array([line[name] for line in history]) for name in history[0]}
    figure = new_figure(9.2, 4.8)
    (loss, kappa), (collapse, rank) = figure.subplots(2, 2)
    for axes, title, names in (
        (loss, "loss and its terms", ("loss", "alignment", "uniformity", "kl", "kappa_fit")),
        (kappa, "κ, mean ± deviation", ("kappa_mean",)),
        (
            collapse,
            "spread of the embedding, cosine, entropies",
            ("embedding_std", "cosine", "teacher_entropy", "prototype_entropy"),
        ),
        (rank, "effective rank of the embedding", ("effective_rank",)),
    ):
        colour = SURE if len(names) == 1 else None
        for name in filter(log.__contains__, names):
            axes.plot(log["step"], log[name], label=name.replace("_", " "), lw=1.2, color=colour)
        if colour is None:
            axes.legend(fontsize=7, frameon=False)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        tidy(axes)
    mean, spread = log["kappa_mean"], log["kappa_std"]
    kappa.fill_between(log["step"], np.maximum(mean - spread, 0), mean + spread, color=SURE, alpha=0.2, lw=0)
    rank.set_ylim(bottom=0)
    return figure
