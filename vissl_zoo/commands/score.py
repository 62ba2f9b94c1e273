"""`vissl-zoo score PATH… --model M --output scores.parquet`: how certain a model is of every photo."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd

from vissl_zoo.cli import OptionalCount, Paths, Within, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.file_lock import output_locked
from vissl_zoo.output import output_file, short_number
from vissl_zoo.photos.inputs import find_inputs
from vissl_zoo.photos.page import Page
from vissl_zoo.photos.score_table import TABLES, certain_first
from vissl_zoo.photos.tool_formats import Format, check_files, export_scores

ENDS = 5  # most and least certain images that the summary names


@dataclass(frozen=True)
class Options:
    """What is scored, by what, and where it goes."""

    paths: Paths = ()
    """Folders, globs, image files, parquet files, or Hub data sets (org/name), any number of them."""
    model: str | None = None
    """A run folder, an export folder, a registered name or any name of timm; by default EfficientNet-Lite0, which has
    seen ImageNet. That one, and a model without κ, get a κ that is fitted to the images first."""
    output: str = "scores.parquet"
    """The table, .parquet, .csv or .jsonl: path, kappa, uncertainty, set_uncertainty, percentile, width, height,
    brightness, contrast, sharpness, issue (dark, bright, blank, blurred, odd size), content_hash, error, model,
    model_hash; one row an image, also for one that cannot be read. set_uncertainty is what 200 images or
    more say of one of them. percentile is its rank, or that of the uncertainty, from 0, the most certain, to 100, the
    least. Called again, the command scores only what is missing or has changed (a finished .csv or .jsonl is scored
    anew)."""
    gallery: str | None = None
    """Also write a page, .html, of the most and least certain images; it needs no network."""
    embeddings: str | None = None
    """Also write the embeddings, .npy: float32 (N, F), row by row those of the table, NaN where an image failed."""
    fit: bool = True
    """Fit to the images first where they are 200 or more, which takes as long as to score 10,000 at most. The fit lies
    beside the table and is used again."""
    set_uncertainty: bool = False
    """Ask the whole set with --exact, too."""
    refit: bool = False
    """Fit anew."""
    views: Annotated[int, Within(0)] = 0
    """Random views of each image that set_uncertainty looks at besides; each costs as much as the image itself."""
    exact: bool = False
    """Decode at full size and compute in float32, for numbers that do not depend on the machine's fastest way, but
    for the last digit of κ on the batch size."""
    to: Format | None = None
    """Also write what this tool imports, see --to-file."""
    to_file: str | None = None
    """Where --to writes, .json; by default beside the table, named after it and the tool."""
    shard: str | None = None
    """Score one part of the images, such as 3/16, counted from 1: for queues and arrays of jobs. Each has its own
    --output in one folder, and the other commands read the folder as one table."""
    engine: Literal["ray"] | None = None
    """Score on the cores or GPUs of a Ray cluster, or of this machine, into the parts of --output-dir."""
    output_dir: str | None = None
    """With --engine ray, in place of --output: a folder of tables, one for each parquet file or 1,000 images. The other
    commands read it as one table. --embeddings names a folder then, which may be the same."""
    shards: OptionalCount = None
    """With --engine ray, how many parts. A later call for the same folder needs the same number."""
    actors: OptionalCount = None
    """With --engine ray, how many processes, each with a GPU or else a core; by default as many as there are."""
    split: str | None = None
    """Of data sets with splits, the one to score; by default all."""
    image_size: OptionalCount = None
    """Side of the images in pixels; by default what the model was trained at."""
    batch_size: OptionalCount = None
    """Images of one forward pass; chosen by default."""
    workers: Annotated[int | None, Within(0)] = None
    """Threads that decode; chosen by default."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a path, the model, or a file that cannot be written."""
    about = (
        "PATH is a folder, glob, image file, parquet file or Hub data set (org/name); several may be given."
    )
    options = parse_flags(Options, Options(), arguments, "vissl-zoo score", about)
    shard, folder = read_shard(options), ray_folder(options)
    output_file(options.output, "--output", TABLES)
    gallery = output_file(options.gallery, "--gallery", (".html", ".htm"))
    embeddings = Path(options.embeddings) if folder and options.embeddings else None
    if folder is None:
        embeddings = output_file(options.embeddings, "--embeddings", (".npy",))
    inputs = find_inputs(options.paths, options.split)
    output = folder or output_file(options.output, "--output", TABLES, inputs.tables)
    if shard is not None and shard[1] > len(inputs):
        raise UserError(f"--shard {options.shard}: there are only {len(inputs)} images")
    beside = (
        output if folder is None else folder / Options.output
    )  # what lies beside the table is named after it
    export = export_file(options.to, options.to_file, beside)
    if options.to is not None:
        check_files(options.to, (part.paths[0] for part in inputs.parts))  # of a table all are rows
    engine: Any = contextlib.nullcontext()
    if folder is not None:
        from vissl_zoo.photos.ray_engine import RayParts

        engine = RayParts(inputs, folder, embeddings, options.shards, options.actors)
    how: Any = {name: getattr(options, name) for name in ("views", "exact", "batch_size", "workers")}
    with output_locked(output), engine:
        from vissl_zoo.photos.scoring import fit_to_inputs, score_inputs

        fitted = fit_to_inputs(
            options.model, inputs, image_size=options.image_size, output=beside, fit=options.fit,
            set_uncertainty=options.set_uncertainty, refit=options.refit, views=options.views, exact=options.exact,
            workers=options.workers,
        )  # fmt: skip
        if folder is not None:
            table, features = engine.score(fitted, **how)
        else:
            table, features = score_inputs(
                fitted, inputs if shard is None else inputs.shard(*shard), shard=shard,
                output=output, embeddings_output=embeddings, **how,
            )  # fmt: skip
    if gallery is not None:
        Page(table, shlex.join(["vissl-zoo", "score", *arguments])).write(gallery)
    files, hint = [], None
    if export is not None:
        files, hint = export_scores(*export, table, np.arange(len(table)), features)
    print(summary(table, inputs.repeated) + "\n")
    for file in filter(None, (output, embeddings, gallery, *files)):
        print(f"wrote {file}")
    if hint is not None:
        print(hint)


def read_shard(options: Options) -> tuple[int, int] | None:
    """The number of the shard, from 1, and how many there are; None without --shard.

    Raises:
        UserError: it is not K/N with 1 ≤ K ≤ N, or all shards would be written to one file.
    """
    if options.shard is None:
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", options.shard)
    number, of = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise UserError(f"--shard must be K/N with K from 1 to N, such as 3/16, not {options.shard}")
    if options.output == Options.output or not options.output.endswith(".parquet"):
        raise UserError(
            f"--shard needs an --output of its own, such as --output scores/{number}-of-{of}.parquet"
        )
    return number, of


def ray_folder(options: Options) -> Path | None:
    """The folder of --engine ray, which is made, as that of the embeddings is; None without that engine.

    Raises:
        UserError: Ray is not installed, a folder is not given or cannot be made, or flags do not go together.
    """
    if options.engine is None:
        given = [n for n in ("output_dir", "shards", "actors") if getattr(options, n) is not None]
        if given:
            raise UserError(f"--{given[0].replace('_', '-')} goes with --engine ray")
        return None
    from vissl_zoo.photos.ray_engine import import_ray

    import_ray()
    if options.output_dir is None or options.output != Options.output or options.shard is not None:
        raise UserError("--engine ray takes --output-dir DIR, and neither --output nor --shard")
    for flag, name in {"--embeddings": options.embeddings, "--output-dir": options.output_dir}.items():
        if name is not None:
            folder = Path(os.path.expanduser(name))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{flag} {name}: the folder cannot be made: {error.strerror}") from error
    return folder


def export_file(to: Format | None, to_file: str | None, output: Path) -> tuple[Format, Path] | None:
    """What --to writes and where, by default beside `output`.

    Raises:
        UserError: --to-file without --to, or a name that cannot be written.
    """
    if to is None:
        if to_file is not None:
            raise UserError("--to-file is given without --to")
        return None
    return to, output_file(to_file or output.with_name(f"{output.stem}.{to}.json"), "--to-file", (".json",))


def summary(table: pd.DataFrame, repeated: int) -> str:
    """How many images, how many failed, and the ends of the order."""
    order, failed = certain_first(table), table[table["uncertainty"].isna()]
    lines = [
        f"{len(table):,} images, " + (f"{len(failed):,} could not be read" if len(failed) else "all readable")
    ]
    if repeated:
        lines.append(f"{repeated:,} named more than once are scored once")
    lines += [f"  {p}: {e}" for p, e in zip(failed["path"][:ENDS], failed["error"][:ENDS], strict=True)]
    ends = {"most certain": order[:ENDS], "least certain": order[::-1][: max(0, len(order) - ENDS)][:ENDS]}
    column, name = (
        ("set_uncertainty", "uncertainty in the set") if "set_uncertainty" in table else ("kappa", "κ")
    )
    for title, places in ends.items():
        if len(places):
            shown = table.iloc[places]
            lines.append(f"\n{title:16}{name}")
            lines += [
                f"  {short_number(v):>12}  {p}" for v, p in zip(shown[column], shown["path"], strict=True)
            ]
    marked = Counter(word for issue in table["issue"] if issue for word in issue.split(", "))
    if marked:
        lines.append(
            "\nby their pixels: " + ", ".join(f"{count:,} {word}" for word, count in marked.most_common())
        )
    return "\n".join(lines)
