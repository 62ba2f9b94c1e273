"""`vissl-zoo select SCORES -k N --order typical`: which images to label first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro

from vissl_zoo.cli import ScoresFile, Seed, Within, parse_flags
from vissl_zoo.commands.score import export_file
from vissl_zoo.errors import UserError
from vissl_zoo.output import output_file
from vissl_zoo.photos.score_table import LISTS, candidates, read_embeddings, read_scores, subset, write_scores
from vissl_zoo.photos.selection import Order, choose
from vissl_zoo.photos.tool_formats import Format, export_scores


@dataclass(frozen=True)
class Options:
    """How many images, by what rule, and where their names go."""

    scores: ScoresFile = ""
    """The table that `score`, `filter` or `dedup` wrote (images that dedup dropped are passed over); with --model, a
    folder of photos."""
    k: Annotated[int, Within(1), tyro.conf.arg(aliases=["-k"])] = 20
    """How many images."""
    order: Order = "typical"
    """typical (TypiClust: the most typical of each of k clusters) is right for a small budget, the first few labels of
    each class; uncertain for a large one, when a classifier exists that can be improved; diverse (k-centre greedy)
    covers the extremes; certain takes the clearest. (Hacohen et al., ICML 2022.)"""
    embeddings: str | None = None
    """The .npy that `score --embeddings` wrote; typical and diverse need it."""
    output: str | None = None
    """Where the chosen go, in the order of choice: .parquet, .csv or .jsonl with their scores, .txt with the paths
    alone. By default the paths are printed."""
    to: Format | None = None
    """Also write what this tool imports, see --to-file."""
    to_file: str | None = None
    """Where --to writes, .json; by default beside the output, named after it and the tool."""
    model: str | None = None
    """Score the photos on the way with this model, keeping no table of it."""
    seed: Seed = 0
    """Of the clusters."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a file or a flag."""
    about = "SCORES is a table of scored images."
    options = parse_flags(Options, Options(), arguments, "vissl-zoo select", about)
    output = output_file(options.output, "--output", LISTS, [options.scores])
    export = export_file(options.to, options.to_file, output or Path("selected"))
    table, embeddings = open_scores(options)
    places = candidates(table, options.scores)
    if options.k > len(places):
        raise UserError(f"-k {options.k}: there are only {len(places)} images to choose from")
    chosen = choose(places, embeddings, options.k, options.order, options.seed)
    if output is None:
        print("\n".join(table["path"].iloc[chosen]))
    else:
        write_scores(output, subset(table, chosen))
        print(f"{len(chosen):,} {options.order} images\nwrote {output}")
    if export is not None:
        files, hint = export_scores(*export, table, chosen, embeddings)
        print("\n".join([*(f"wrote {file}" for file in files), hint]))


def open_scores(options: Options) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The scores and their embeddings (N, F): read, or made from photos if there is a --model."""
    if options.model is None:
        if os.path.isdir(options.scores):
            raise UserError(f"{options.scores} is a folder: score it first, or give --model")
        table = read_scores(options.scores)
        if options.order in ("typical", "diverse") or options.embeddings is not None:
            return table, read_embeddings(options.embeddings, table, f"--order {options.order}")
        return table, None
    from vissl_zoo.photos.inputs import find_inputs
    from vissl_zoo.photos.scoring import fit_to_inputs, score_inputs

    inputs = find_inputs([options.scores])
    return score_inputs(fit_to_inputs(options.model, inputs), inputs, embeddings=True)
