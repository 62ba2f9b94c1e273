"""`vissl-zoo select SCORES -k N --order typical`: which images to label first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from vissl_zoo.cli import ScoresFile, parse_flags
from vissl_zoo.commands.score import Format, export_file, open_model
from vissl_zoo.errors import UserError
from vissl_zoo.photos.inputs import find_inputs
from vissl_zoo.photos.score_table import Scores, check_output, read_embeddings, read_scores
from vissl_zoo.photos.selection import most_diverse, most_typical
from vissl_zoo.photos.tool_formats import export_scores

LISTS = (".parquet", ".csv", ".jsonl", ".txt")


@dataclass(frozen=True)
class Arguments:
    """How many images, by what rule, and where their names go."""

    scores: ScoresFile = None
    """The table that `score`, `filter` or `dedup` wrote (images that dedup dropped are passed over); with --model, a
    folder of photos."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 20
    """How many images."""
    order: Literal["typical", "diverse", "uncertain", "certain"] = "typical"
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
    seed: int = 0
    """Of the clusters."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about a file or a flag.
    """
    about = "SCORES is a table of scored images."
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo select", about)
    if flags.scores is None:
        raise UserError("select needs the SCORES that `vissl-zoo score` wrote (see --help)")
    if flags.k < 1 or not 0 <= flags.seed < 2**32:
        raise UserError(f"-k must be at least 1, --seed in [0, 2**32): {flags.k}, {flags.seed}")
    output = check_output(flags.output, "--output", LISTS, [flags.scores])
    to_file = export_file(flags.to, flags.to_file, output or Path("selected"))
    wants = flags.order in ("typical", "diverse")
    scores, embeddings = open_scores(flags, wants)
    chosen = choose(scores, embeddings, flags.k, flags.order, flags.seed)
    if output is None:
        print("\n".join(scores.paths[place] for place in chosen))
    else:
        scores.write(output, chosen)
        print(f"{len(chosen):,} {flags.order} images\nwrote {output}")
    if flags.to is not None:
        files, hint = export_scores(flags.to, scores, chosen, to_file, embeddings)
        print("\n".join([*(f"wrote {file}" for file in files), f"{flags.to}: {hint}"]))


def open_scores(flags: Arguments, wants: bool) -> tuple[Scores, np.ndarray | None]:
    """The scores and their embeddings (N, F): read, or made from photos if there is a --model."""
    if flags.model is None:
        if os.path.isdir(flags.scores):
            raise UserError(f"{flags.scores} is a folder: score it first, or give --model")
        scores = read_scores(flags.scores)
        if wants or flags.embeddings is not None:
            return scores, read_embeddings(flags.embeddings, scores, f"--order {flags.order}")
        return scores, None
    from vissl_zoo.photos.scoring import score_inputs

    inputs = find_inputs([flags.scores])
    loaded, settings = open_model(flags.model, None)
    return score_inputs(loaded.model, flags.model, inputs, settings, embeddings=True)


def choose(scores: Scores, embeddings: np.ndarray | None, k: int, order: str, seed: int = 0) -> np.ndarray:
    """Places (k,) of the chosen images, among those that have a score and repeat no other, in the order of choice.

    Raises:
        UserError: there are fewer than k.
    """
    candidates = scores.order[scores.kept[scores.order]]
    if k > len(candidates):
        raise UserError(f"-k {k}: there are only {len(candidates)} images to choose from")
    if order in ("certain", "uncertain"):
        return (candidates if order == "certain" else candidates[::-1])[:k]
    candidates = np.sort(candidates)
    found = embeddings[candidates]
    return candidates[most_typical(found, k, seed) if order == "typical" else most_diverse(found, k)]
