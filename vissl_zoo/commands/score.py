"""`vissl-zoo score PATH… --model M --output scores.parquet`: how certain a model is of every photo."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.photos.inputs import find_inputs
from vissl_zoo.photos.page import Page, number
from vissl_zoo.photos.score_table import Scores, check_output
from vissl_zoo.photos.tool_formats import check_files, export_scores

TABLES = (".parquet", ".csv", ".jsonl")
ENDS = 5  # most and least certain images that the summary names
Format = Literal["fiftyone", "cleanlab", "label-studio", "lightly"]
Paths = Annotated[
    tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PATH ...", help_behavior_hint="")
]


@dataclass(frozen=True)
class Arguments:
    """What is scored, by what, and where it goes."""

    paths: Paths = ()
    """Folders, globs, image files, parquet files, or Hub data sets (org/name), any number of them."""
    model: str | None = None
    """A run folder, an export folder or a registered name; it must have a κ head (see `fit-kappa`)."""
    output: str = "scores.parquet"
    """The table, .parquet, .csv or .jsonl: path, kappa, uncertainty, percentile, width, height, error, model,
    model_hash; one row an image, also for one that cannot be read. percentile is the rank of the uncertainty among
    these images, from 0, the most certain, to 100, the least. Called again, the command scores only what is missing or
    has changed (a finished .csv or .jsonl is scored anew)."""
    gallery: str | None = None
    """Also write a page, .html, of the most and least certain images; it needs no network."""
    embeddings: str | None = None
    """Also write the embeddings, .npy: float32 (N, F), row by row those of the table, NaN where an image failed."""
    views: int = 1
    """Score by the mean κ over so many augmented views in place of the one clean crop: at times better, and as
    many times slower."""
    exact: bool = False
    """Decode at full size and compute in float32, for numbers that do not depend on the machine's fastest way, but
    for the last digit of κ on the batch size."""
    to: Format | None = None
    """Also write what this tool imports, see --to-file."""
    to_file: str | None = None
    """Where --to writes, .json; by default beside the table, named after it and the tool."""
    split: str | None = None
    """Of data sets with splits, the one to score; by default all."""
    image_size: int | None = None
    """Side of the images in pixels; by default what the model was trained at."""
    batch_size: int | None = None
    """Images of one forward pass; chosen by default."""
    workers: int | None = None
    """Processes or threads that decode; chosen by default."""
    seed: int = 0
    """Of the augmented views."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about a path, the model, or a file that cannot be written.
    """
    about = (
        "PATH is a folder, glob, image file, parquet file or Hub data set (org/name); several may be given."
    )
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo score", about)
    from vissl_zoo.photos.scoring import score_inputs

    output, gallery, embeddings, to_file = _check(flags)
    inputs = find_inputs(flags.paths, flags.split)
    check_output(flags.output, "--output", TABLES, inputs.tables)
    if flags.to is not None:
        check_files(flags.to, (part.paths[0] for part in inputs.parts))  # of a table all are rows
    loaded, settings = open_model(flags.model, flags)
    scores, features = score_inputs(
        loaded.model,
        flags.model,
        inputs,
        settings,
        output=output,
        embeddings_output=embeddings,
        embeddings=flags.to is not None,
    )
    written = [output, embeddings]
    if gallery is not None:
        Page(scores, shlex.join(["vissl-zoo", "score", *arguments])).write(gallery)
        written.append(gallery)
    hint = None
    if flags.to is not None:
        given = features if embeddings is not None else None
        files, hint = export_scores(flags.to, scores, np.arange(len(scores)), to_file, given)
        written += files
    print(summary(scores, inputs.repeated))
    print("\n" + "\n".join(f"wrote {file}" for file in written if file is not None))
    if hint is not None:
        print(f"{flags.to}: {hint}")


def open_model(name: str | None, flags: object):
    """(loaded model on the device where it runs, how to score) for flags that have those of `Arguments`."""
    if name is None:
        raise UserError(
            "--model is missing: a run folder, an export folder or a registered name (see --help)"
        )
    from vissl_zoo.cpu.device import take_device
    from vissl_zoo.inference import load_model
    from vissl_zoo.photos.scoring import Settings

    loaded = load_model(name, image_size=getattr(flags, "image_size", None))
    loaded.model.to(take_device())
    known = {
        f: getattr(flags, f) for f in ("views", "seed", "exact", "batch_size", "workers") if hasattr(flags, f)
    }
    return loaded, Settings(loaded.image_size, **known)


def export_file(to: str | None, to_file: str | None, output: Path | None) -> Path | None:
    """Where --to writes.

    Raises:
        UserError: --to-file without --to, or a name that cannot be written.
    """
    if to is None and to_file is not None:
        raise UserError("--to-file is given without --to")
    if to is None:
        return None
    stem = "scores" if output is None else output.stem
    named = to_file or str((output or Path("scores")).with_name(f"{stem}.{to}.json"))
    return check_output(named, "--to-file", (".json",))


def summary(scores: Scores, repeated: int) -> str:
    """How many images, how many failed, and the ends of the order."""
    order = scores.order
    failed = len(scores) - len(order)
    lines = [f"{len(scores):,} images" + (f", {failed:,} could not be read" if failed else ", all readable")]
    if repeated:
        lines.append(f"{repeated:,} named more than once are scored once")
    for place in np.flatnonzero(np.isnan(scores.uncertainty))[:ENDS]:
        lines.append(f"  {scores.paths[place]}: {scores.errors[place]}")
    ends = {"most certain": order[:ENDS], "least certain": order[::-1][: max(0, len(order) - ENDS)][:ENDS]}
    for title, places in ends.items():
        if len(places):
            lines.append(f"\n{title:16}κ")
            lines += [f"  {number(scores.kappa[p]):>12}  {scores.paths[p]}" for p in places]
    return "\n".join(lines)


def _check(flags: Arguments) -> tuple[Path | None, ...]:
    if not flags.paths:
        raise UserError(
            "score needs a PATH: a folder, a glob, an image, a parquet file, a data set (see --help)"
        )
    for name, least in (("views", 1), ("image_size", 1), ("batch_size", 1), ("workers", 0), ("seed", 0)):
        value = getattr(flags, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    output = check_output(flags.output, "--output", TABLES)
    gallery = check_output(flags.gallery, "--gallery", (".html", ".htm"))
    embeddings = check_output(flags.embeddings, "--embeddings", (".npy",))
    return output, gallery, embeddings, export_file(flags.to, flags.to_file, output)
