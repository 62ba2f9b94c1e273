"""The report at the end of a training: what was learnt, what κ knows, and the images it is most and least sure of.

It looks at a sample of the images; `limit` says how large. Data without labels get what needs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from torch import nn

from vissl_zoo.data import BadImage, ImageTable, available_splits, open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation import figures
from vissl_zoo.evaluation.knn import FEWEST, knn
from vissl_zoo.evaluation.uncertainty import auroc, edge_density, pixel_deviation, spearman
from vissl_zoo.inference import CentralCrop, Embedded, central_crop, embed_all
from vissl_zoo.inference.loading import TEST_SPLITS

HELD_OUT = 0.1  # of the training images, where the data have no other split
GALLERY = 16


@dataclass
class Report:
    """What `write_report` found: `metrics` as in metrics.json, rows of the summary, and what was left out."""

    folder: Path
    metrics: dict[str, Any]
    rows: list[tuple[str, str, str]]
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The summary table as text, with the names of the pictures."""
        width = max(len(row[0]) for row in self.rows)
        lines = [f"{'':{width}}  {'trained':>9}  {'untrained':>9}"]
        lines += [f"{name:{width}}  {trained:>9}  {untrained:>9}" for name, trained, untrained in self.rows]
        lines += ["", *self.notes] if self.notes else [""]
        return "\n".join(
            [*lines, f"gallery: {self.folder / 'gallery.png'}", f"report:  {self.folder / 'index.html'}"]
        )


@dataclass
class ReportImages:
    """The images a report is made from: a bank for kNN, and the ones that are scored."""

    bank_rows: np.ndarray
    bank_table: ImageTable
    scored_rows: np.ndarray
    scored_table: ImageTable
    about: str
    workers: int | None

    def embed(self, model: nn.Module, size: int, what: str, *, bank: bool = False) -> Embedded:
        """Embedding, κ and uncertainty of the images to score, or of the bank."""
        table, rows = (self.bank_table, self.bank_rows) if bank else (self.scored_table, self.scored_rows)
        return embed_all(model, table, size, rows=rows, workers=self.workers, progress=what)


def write_report(
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
) -> Report:
    """Measure a trained model beside its untrained self, and draw what it is sure and unsure of.

    Args:
        folder: where metrics.json, the PNG pictures and index.html go.
        model: the trained model, with `represent`.
        untrained: the same model before training.
        table: the training images.
        image_size: side of the central crop that is looked at.
        split: the split to measure on; None for `test` or `validation`. Where there is none beside the one
            that was trained on, a tenth of that is measured on, or all of it if it has no labels.
        columns: names of the image and the label column, or None.
        limit: most training images looked at; a quarter as many are scored.
        history: the lines of metrics.jsonl.
        diagnoses: what the training's own watch has to say, shown with the figures.
        seconds: how long the run has taken, asked at the end.
        seed: of every random choice.
        workers: threads that decode images.

    Raises:
        UserError: the split cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    untrained.pretrained_cfg = model.pretrained_cfg  # both see the same crops
    images = choose_images(table, split, columns, limit, seed, workers)
    scored = images.embed(model, image_size, "scoring")
    before = images.embed(untrained, image_size, "scoring, untrained")
    metrics: dict[str, Any] = {"images": len(scored.rows), "kappa_mean": float(scored.kappa.mean())}
    metrics |= {"kappa_std": float(scored.kappa.std()), "uncertainty_mean": float(scored.uncertainty.mean())}
    report = Report(folder, metrics, [], [images.about, *diagnoses])
    report.rows.append(("κ, mean", f"{scored.kappa.mean():.4g}", f"{before.kappa.mean():.4g}"))
    plots = [("kappa.png", "histogram of kappa")]
    result = _classify(report, images, model, untrained, scored, before, image_size, seed)
    ambiguity = _column(images, scored, "ambiguity")
    if ambiguity is not None:
        _compare_with_ambiguity(report, images, scored, before, ambiguity, central_crop(model, image_size))
        figures.uncertainty_by_ambiguity(scored.uncertainty, ambiguity, folder / "ambiguity.png")
        plots.append(("ambiguity.png", "uncertainty against the known ambiguity"))
    figures.kappa_histogram(scored.kappa, result, folder / "kappa.png")
    figures.curves(history, folder / "curves.png")
    _draw_gallery(images, scored, ambiguity, folder / "gallery.png")
    metrics["seconds"] = seconds()
    report.rows.append(("seconds, training and report", f"{metrics['seconds']:.0f}", ""))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    _write_page(report, folder.absolute().parent.name, plots)
    return report


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
    table: ImageTable,
    split: str | None,
    columns: tuple[str | None, str | None],
    limit: int,
    seed: int,
    workers: int | None = None,
) -> ReportImages:
    """Open the bank (training images) and the images to score, both in the order of the data.

    Raises:
        UserError: the split does not exist or cannot be read.
    """
    rng = np.random.default_rng(seed)
    columns = {"image_column": columns[0], "label_column": columns[1]}
    scored_table = open_measured(table, split, **columns)
    if scored_table is not None:
        scored_rows, bank_rows = rng.permutation(len(scored_table)), rng.permutation(len(table))
        about = f"the split {scored_table.split!r} of {table.path}"
    elif table.labels is None:  # no bank is needed, and a small folder is shown whole
        scored_table, scored_rows, bank_rows = table, rng.permutation(len(table)), np.arange(0)
        about = f"the split {table.split!r} of {table.path}, which training saw"
    else:
        order = rng.permutation(len(table))
        held_out = max(1, round(HELD_OUT * len(table)))
        scored_rows, bank_rows, scored_table = order[:held_out], order[held_out:], table
        about = f"a tenth of the split {table.split!r} of {table.path}, which training saw, without labels"
    bank_rows, scored_rows = np.sort(bank_rows[:limit]), np.sort(scored_rows[: max(1, limit // 4)])
    about = f"Measured on {len(scored_rows)} images: {about}."
    return ReportImages(bank_rows, table, scored_rows, scored_table, about, workers)


def _classify(
    report: Report,
    images: ReportImages,
    model: nn.Module,
    untrained: nn.Module,
    scored: Embedded,
    before: Embedded,
    image_size: int,
    seed: int,
) -> np.ndarray | None:
    """kNN accuracy and the AUROC of κ for it, over the images that have labels.

    Returns:
        Which scored images (N,) are classified correctly; None, and a note, where there are no labels.
    """
    if images.bank_table.labels is None or images.scored_table.labels is None:
        report.notes.append("Without labels there is no kNN accuracy and no AUROC.")
        return None
    labels = images.scored_table.labels[scored.rows]
    labelled = labels >= 0
    if (images.bank_table.labels[images.bank_rows] >= 0).sum() < FEWEST or not labelled.any():
        report.notes.append(
            f"With fewer than {FEWEST} labelled training images there is no kNN accuracy and no AUROC."
        )
        return None
    results = []
    for each, features, called in ((model, scored, "features"), (untrained, before, "features, untrained")):
        bank = images.embed(each, image_size, called, bank=True)
        bank_labels = images.bank_table.labels[bank.rows]
        known = bank_labels >= 0
        queries = features.embedding[labelled]
        results.append(knn(bank.embedding[known], bank_labels[known], queries, labels[labelled], seed=seed))
    trained, floor = results
    areas = auroc(scored.kappa[labelled], trained.correct), auroc(before.kappa[labelled], floor.correct)
    report.notes[0] += f" kNN looks among {known.sum()} training images."
    if not labelled.all():
        report.notes.append(f"{(~labelled).sum()} images without a label are left out of kNN and AUROC.")
    report.metrics |= {
        "knn_top1": trained.top1,
        "knn_top1_untrained": floor.top1,
        "knn_k": trained.k,
        "knn_bank_images": int(known.sum()),
        "auroc_kappa_knn": areas[0],
        "auroc_kappa_knn_untrained": areas[1],
    }
    report.rows.append(
        (f"kNN top-1 (k = {trained.k}), %", f"{100 * trained.top1:.1f}", f"{100 * floor.top1:.1f}")
    )
    report.rows.append(("AUROC of κ for kNN correctness", _number(areas[0]), _number(areas[1])))
    correct = np.zeros(len(labels), dtype=bool)
    correct[labelled] = trained.correct
    return correct if labelled.all() else None


def _compare_with_ambiguity(
    report: Report,
    images: ReportImages,
    scored: Embedded,
    before: Embedded,
    ambiguity: np.ndarray,
    crop: CentralCrop,
) -> None:
    """Spearman of the uncertainty with the ground truth, beside scores that have learnt nothing."""
    pixels = np.stack([crop.crop(images.scored_table.read(int(row))) for row in scored.rows])
    pixels = pixels.transpose(0, 3, 1, 2)
    learnt = spearman(scored.uncertainty, ambiguity)
    blank = {
        "untrained_kappa": spearman(before.uncertainty, ambiguity),
        "edge_density": spearman(edge_density(pixels), ambiguity),
        "pixel_deviation": spearman(pixel_deviation(pixels), ambiguity),
    }
    report.metrics["spearman_uncertainty_ambiguity"] = learnt
    report.metrics |= {f"spearman_{name}_ambiguity": value for name, value in blank.items()}
    report.rows.append(
        ("Spearman of uncertainty with ambiguity", _number(learnt), _number(blank["untrained_kappa"]))
    )
    for name in ("edge_density", "pixel_deviation"):
        report.rows.append((f"  of {name.replace('_', ' ')}, no network", "", _number(blank[name])))


def _draw_gallery(images: ReportImages, scored: Embedded, ambiguity: np.ndarray | None, path: Path) -> None:
    """The GALLERY most and least certain of the scored images, at most half of them each."""
    order = np.argsort(-scored.kappa, kind="stable")
    count = min(GALLERY, max(1, len(order) // 2))

    def captioned(position: int):
        row = int(scored.rows[position])
        caption = f"κ {_kappa(scored.kappa[position])}"
        if ambiguity is not None:
            caption += f", a {ambiguity[position]:.2f}"
        return images.scored_table.read(row), caption

    chosen = []
    for positions in (order[:count], order[::-1][:count]):
        block = []
        for position in positions:
            try:
                block.append(captioned(int(position)))
            except BadImage:  # decoded on the fly, an unreadable image has a stand-in and no picture
                continue
        chosen.append(block)
    figures.gallery(*chosen, path)


def _column(images: ReportImages, scored: Embedded, name: str) -> np.ndarray | None:
    """A column of finite numbers (N,) of the scored images; None where there is none of that name."""
    values = images.scored_table.column(name)
    if values is None or not np.issubdtype(values.dtype, np.number):
        return None
    values = values[scored.rows]
    return values if np.isfinite(values).all() else None


def _kappa(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _write_page(report: Report, name: str, plots: list[tuple[str, str]]) -> None:
    loader = jinja2.PackageLoader("vissl_zoo.evaluation", "")
    page = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html.jinja")
    about, *notes = report.notes
    html = page.render(
        title=f"{name}: what was learnt, and how sure it is",
        about=about,
        notes=notes,
        rows=report.rows,
        plots=plots,
        ambiguity=len(plots) > 1,
    )
    (report.folder / "index.html").write_text(html)
