"""`vissl-zoo compare A B`: do two models find the same images uncertain? Scatter and correlation (Fig. 6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow.parquet as pq

from vissl_zoo.cli import Count, Evaluations, Seed, parse_flags
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.output import write_text, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "0.5459 (κ of VI-SimSiam and entropy of DINO, ImageNet-100)"
LABELS = {"uncertainty": "uncertainty", "kappa": "κ"}
Column = Literal["uncertainty", "kappa"]


@dataclass(frozen=True)
class Options:
    """What is compared, and where it goes."""

    evaluations: Evaluations = ()
    """Two evaluation folders, or their predictions.parquet, of the same images."""
    column_a: Column = "uncertainty"
    """What to take of A; the paper's Fig. 6 is kappa of VI-SimSiam against uncertainty (entropy) of DINO."""
    column_b: Column = "uncertainty"
    """What to take of B."""
    output_dir: str | None = None
    """Where compare.json and compare.png go; by default comparisons/ and the two names."""
    shuffles: Count = 1000
    """Shuffles of the permutation test."""
    seed: Seed = 0
    """Of the shuffles."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a folder, a column, images that differ, or a flag."""
    about = "A and B are evaluation folders (or their predictions.parquet) of the same images."
    options = parse_flags(Options, Options(), arguments, "vissl-zoo compare", about)
    if len(options.evaluations) != 2:
        raise UserError(
            f"compare needs two evaluation folders first, not {len(options.evaluations)} (see --help)"
        )
    from vissl_zoo.evaluation.correlation import correlation

    a, b = options.evaluations
    x, y = read_pair(a, b, options.column_a, options.column_b)
    found = {
        name: correlation(x, y, ranks=name == "spearman", shuffles=options.shuffles, seed=options.seed)
        for name in ("pearson", "spearman")
    }
    values = {name: value for name, value in found.items() if value is not None}
    constant = [name for name, column in ((a, x), (b, y)) if np.ptp(column) == 0]
    reason = "fewer than two images" if len(x) < 2 else f"constant in {' and '.join(constant)}"
    slope, intercept = np.polyfit(x, y, 1).tolist() if values else (None, None)
    result = {
        "a": {"evaluation": a, "column": options.column_a},
        "b": {"evaluation": b, "column": options.column_b},
        "images": len(x),
        **dict.fromkeys(found),
        **{name: value._asdict() for name, value in values.items()},
        "regression": {"slope": slope, "intercept": intercept} if values else None,
        "reasons": {} if values else dict.fromkeys(found, reason),
        "paper": {"pearson": PAPER},
    }
    labels = [f"{LABELS[c]} of {_short(n)}" for n, c in ((a, options.column_a), (b, options.column_b))]
    title = ", ".join(f"{name.title()} {value.value:.3f}" for name, value in values.items()) or reason
    folder = Path(options.output_dir or Path("comparisons") / f"{_short(a)}-{_short(b)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
    write_text(folder / "compare.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_whole(folder / "compare.png", scatter(x, y, labels, title, slope, intercept).savefig)
    for name, value in found.items():
        said = f"undefined: {reason}" if value is None else f"{value.value:+.4f}  p = {value.p_value:.4f}"
        print(f"{name:9} {said}")
    print(f"paper     {PAPER}\n\n{len(x)} images: {folder / 'compare.png'}")


def read_pair(a: str, b: str, column_a: Column, column_b: Column) -> tuple[np.ndarray, np.ndarray]:
    """The two columns (N,) float64 over the same images in the same order, that of the rows.

    Raises:
        UserError: no predictions, no such column, a value that is not finite, or images that differ.
    """
    (rows_a, paths_a, x), (rows_b, paths_b, y) = _read(a, column_a), _read(b, column_b)
    if not np.array_equal(rows_a, rows_b):
        alone = np.setxor1d(rows_a, rows_b)
        which = f"row {alone[0]} is in one of them alone" if len(alone) else "a row is repeated"
        raise UserError(f"{a} and {b} are not of the same images: {len(x)} and {len(y)}, {which}")
    for row, path, other in zip(rows_a, paths_a, paths_b, strict=True):
        if path != other:
            raise UserError(f"{a} and {b} are not of the same images: row {row} is {path} and {other}")
    return x, y


def scatter(
    x: np.ndarray, y: np.ndarray, labels: list[str], title: str, slope: float | None, intercept: float | None
) -> Figure:
    """A point (x, y) for each image, and the regression line, if there is one."""
    from vissl_zoo.evaluation.figures import NEUTRAL, UNSURE, new_figure, tidy

    figure = new_figure(4.8, 4.2)
    axes = figure.subplots()
    axes.scatter(x, y, s=5, color=NEUTRAL, alpha=float(np.clip(600 / len(x), 0.15, 0.7)), lw=0)
    if slope is not None:
        axes.axline((x[0], slope * x[0] + intercept), slope=slope, color=UNSURE, lw=1.6)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.set_title(title, fontsize=9)
    tidy(axes)
    return figure


def _short(name: str) -> str:
    """What to call an evaluation: its folder's name."""
    path = Path(name).resolve()
    return path.parent.name if path.suffix == ".parquet" else path.name


def _read(name: str, column: Column) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Rows (N,), paths and a column (N,) float64 of an evaluation, by row."""
    path = Path(name) if Path(name).suffix == ".parquet" else Path(name) / "predictions.parquet"
    if not path.is_file():
        raise UserError(f"{name} is no evaluation: there is no {path}; make it with `vissl-zoo evaluate`")
    try:
        table = pq.read_table(path)
    except Exception as error:  # Arrow has errors of its own
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    missing = [key for key in ("row", "path", column) if key not in table.column_names]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}")
    if not len(table):
        raise UserError(f"{path} holds no image")
    table = table.sort_by("row")
    rows, paths = table["row"].to_numpy(), table["path"].to_pylist()
    values = np.array(table[column].to_pylist(), dtype=np.float64)  # None becomes NaN
    if np.isnan(values).all():
        raise UserError(f"{path} has no {column}: that model has no κ head")
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {column} of row {rows[~np.isfinite(values)][0]} is not finite")
    return rows, paths, values
