"""`vissl-zoo compare A B`: do two models find the same images uncertain? Scatter and correlation (Fig. 6)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow.parquet

from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "0.5459 (κ of VI-SimSiam and entropy of DINO, ImageNet-100)"
LABELS = {"uncertainty": "uncertainty", "kappa": "κ"}


@dataclass(frozen=True)
class Arguments:
    """What is compared, and where it goes."""

    column_a: Literal["uncertainty", "kappa"] = "uncertainty"
    """What to take of A; the paper's Fig. 6 is kappa of VI-SimSiam against uncertainty (entropy) of DINO."""
    column_b: Literal["uncertainty", "kappa"] = "uncertainty"
    """What to take of B."""
    output_dir: str | None = None
    """Where compare.json and compare.png go; by default comparisons/ and the two names."""
    shuffles: int = 1000
    """Shuffles of the permutation test; 1 at least."""
    seed: int = 0
    """Of the shuffles."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about a folder, a column, images that differ, or a flag.
    """
    named = 0
    while named < len(arguments) and not arguments[named].startswith("-"):
        named += 1
    about = "A and B are evaluation folders (or their predictions.parquet) of the same images."
    flags = parse_flags(Arguments, Arguments(), arguments[named:], "vissl-zoo compare A B", about)
    if named != 2:
        raise UserError(f"compare needs two evaluation folders first, not {named} (see --help)")
    if flags.shuffles < 1:
        raise UserError(f"--shuffles must be at least 1, not {flags.shuffles}")
    from vissl_zoo.evaluation.measures import correlation

    a, b = arguments[:2]
    x, y = read_pair(a, b, flags.column_a, flags.column_b)
    found = {
        name: correlation(x, y, ranks=name == "spearman", shuffles=flags.shuffles, seed=flags.seed)
        for name in ("pearson", "spearman")
    }
    constant = [name for name, values in ((a, x), (b, y)) if np.ptp(values) == 0]
    reason = "fewer than two images" if len(x) < 2 else f"constant in {' and '.join(constant)}"
    undefined = None in found.values()
    slope, intercept = (None, None) if undefined else regression_line(x, y)
    folder = Path(flags.output_dir or Path("comparisons") / f"{_short(a)}-{_short(b)}")
    result = {
        "a": {"evaluation": a, "column": flags.column_a},
        "b": {"evaluation": b, "column": flags.column_b},
        "images": len(x),
        **{name: None if value is None else value._asdict() for name, value in found.items()},
        "regression": None if undefined else {"slope": slope, "intercept": intercept},
        "reasons": {"pearson": reason, "spearman": reason} if undefined else {},
        "paper": {"pearson": PAPER},
    }
    labels = [f"{LABELS[c]} of {_short(n)}" for n, c in ((a, flags.column_a), (b, flags.column_b))]
    title = (
        reason
        if undefined
        else f"Pearson {found['pearson'].value:.3f}, Spearman {found['spearman'].value:.3f}"
    )
    figure = scatter(x, y, labels, title, None if undefined else (slope, intercept))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compare.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        figure.savefig(folder / "compare.png")
    except OSError as error:
        raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
    for name, value in found.items():
        said = f"undefined: {reason}" if value is None else f"{value.value:+.4f}  p = {value.p_value:.4f}"
        print(f"{name:9} {said}")
    print(f"paper     {PAPER}\n\n{len(x)} images: {folder / 'compare.png'}")


def read_pair(a: str, b: str, column_a: str, column_b: str) -> tuple[np.ndarray, np.ndarray]:
    """The two columns (N,) float64 over the same images in the same order, that of A.

    Raises:
        UserError: no predictions, no such column, a value that is not finite, or images that differ.
    """
    (rows_a, paths_a, x), (rows_b, paths_b, y) = _read(a, column_a), _read(b, column_b)
    order_a, order_b = np.argsort(rows_a, kind="stable"), np.argsort(rows_b, kind="stable")
    if not np.array_equal(rows_a[order_a], rows_b[order_b]):
        alone = np.setxor1d(rows_a, rows_b)
        which = f"row {alone[0]} is in one of them alone" if len(alone) else "a row is repeated"
        raise UserError(f"{a} and {b} are not of the same images: {len(x)} and {len(y)}, {which}")
    for i, j in zip(order_a, order_b, strict=True):
        if paths_a[i] != paths_b[j]:
            raise UserError(
                f"{a} and {b} are not of the same images: row {rows_a[i]} is {paths_a[i]} and {paths_b[j]}"
            )
    aligned = np.empty_like(y)
    aligned[order_a] = y[order_b]
    return x, aligned


def regression_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least-squares line of y on x, both (N,), x not constant."""
    centred = x - x.mean()
    slope = float(centred @ (y - y.mean()) / (centred @ centred))
    return slope, float(y.mean() - slope * x.mean())


def scatter(
    x: np.ndarray, y: np.ndarray, labels: list[str], title: str, line: tuple[float, float] | None
) -> Figure:
    """A point (x, y) for each image, and the regression line."""
    from vissl_zoo.evaluation.figures import NEUTRAL, UNSURE, new_figure, tidy

    figure = new_figure(4.8, 4.2)
    axes = figure.subplots()
    axes.scatter(x, y, s=5, color=NEUTRAL, alpha=float(np.clip(600 / len(x), 0.15, 0.7)), lw=0)
    if line is not None:
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, line[0] * ends + line[1], color=UNSURE, lw=1.6)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.set_title(title, fontsize=9)
    tidy(axes)
    return figure


def _short(name: str) -> str:
    """What to call an evaluation: its folder's name."""
    path = Path(name).resolve()
    return path.parent.name if path.suffix == ".parquet" else path.name


def _read(name: str, column: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Rows (N,), paths and a column (N,) float64 of an evaluation."""
    path = Path(name) if Path(name).suffix == ".parquet" else Path(name) / "predictions.parquet"
    if not path.is_file():
        raise UserError(f"{name} is no evaluation: there is no {path}; make it with `vissl-zoo evaluate`")
    try:
        table = pyarrow.parquet.read_table(path)
    except Exception as error:  # Arrow has errors of its own
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    missing = [key for key in ("row", "path", column) if key not in table.column_names]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}")
    said = [table[key].to_pylist() for key in ("row", "path", column)]
    rows, paths, values = np.array(said[0]), said[1], np.array(said[2], dtype=np.float64)  # None becomes NaN
    if not len(values):
        raise UserError(f"{path} holds no image")
    if np.isnan(values).all():
        raise UserError(f"{path} has no {column}: that model has no κ head")
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {column} of row {rows[~np.isfinite(values)][0]} is not finite")
    return rows, paths, values
