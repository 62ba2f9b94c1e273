"""`vissl-zoo dedup SCORES --embeddings E.npy --threshold 0.95`: near-duplicates, and which of each group to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vissl_zoo.cli import Fraction, ScoresFile, parse_flags
from vissl_zoo.output import output_file
from vissl_zoo.photos.duplicates import Groups, find_duplicates, random_cosines
from vissl_zoo.photos.score_table import (
    LISTS,
    candidates,
    embedding_rows,
    read_embeddings,
    read_scores,
    write_scores,
)

SHOWN = 10  # groups that are printed
FEW = 3  # groups that are printed also when they are written


@dataclass(frozen=True)
class Options:
    """What counts as a duplicate, and where the groups go."""

    scores: ScoresFile = ""
    """The table that `score`, `select` or `filter` wrote."""
    embeddings: str | None = None
    """The .npy that `score --embeddings` wrote."""
    threshold: Fraction = 0.95
    """Two images are near-duplicates when the cosine of their embeddings is at least this. What is high depends on the
    model: the command prints the cosine of random pairs to compare with."""
    centre: bool = False
    """Subtract the mean embedding first. Embeddings of many networks all point one way, which makes every cosine high;
    without the part that all share, a threshold means more."""
    output: str | None = None
    """Where the groups go: .parquet, .csv or .jsonl, one row an image with its scores and `group` (empty if it
    repeats none; the largest is 0), `kept`, and `cosine` to the kept one; `select` and `filter` read it and pass over
    what is not kept. A .txt gets the paths to keep. By default the groups are printed."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a file or a flag."""
    about = "SCORES is a table of scored images. No file is moved or deleted."
    options = parse_flags(Options, Options(), arguments, "vissl-zoo dedup", about)
    output = output_file(options.output, "--output", LISTS, [options.scores])
    table = read_scores(options.scores)
    embeddings = read_embeddings(options.embeddings, table, "dedup")
    places = candidates(table, options.scores)
    groups = find_duplicates(embeddings, places, options.threshold, centre=options.centre)
    count = groups.group.max(initial=-1) + 1
    repeats = int((groups.group >= 0).sum() - count)
    print(
        f"{len(places):,} images: {count:,} groups of near-duplicates, {repeats:,} images repeat another, "
        f"{int(groups.kept.sum()):,} are left"
    )
    if len(places) > 1:
        cosines = random_cosines(embeddings[places], centre=options.centre)
        median, high = np.quantile(cosines, [0.5, 0.99])
        print(f"cosine of two random images: median {median:.3f}, 99 % below {high:.3f}")
        if high >= options.threshold:
            print(
                f"to this model, images that are no duplicates are this alike: try --threshold above {high:.3f} "
                "or --centre"
            )
    if output is None or count <= FEW:
        print_groups(table, groups)
    if output is not None:
        whole = table.assign(
            row=embedding_rows(table),
            group=pd.Series(groups.group, dtype="Int64").mask(groups.group < 0),
            kept=groups.kept,
            cosine=groups.cosine,
        )
        write_scores(output, whole.loc[groups.kept] if output.suffix.lower() == ".txt" else whole)
        print(f"wrote {output}")


def print_groups(table: pd.DataFrame, groups: Groups) -> None:
    """The first groups, the kept image of each first."""
    count = int(groups.group.max(initial=-1) + 1)
    for number in range(min(count, SHOWN)):
        members = groups.members(number)
        print(f"\ngroup {number}: {len(members)} images")
        for place in members:
            said = "kept " if groups.kept[place] else f"{groups.cosine[place]:.3f}"
            print(f"  {said}  {table['path'][place]}")
    if count > SHOWN:
        print(f"\nand {count - SHOWN:,} more groups; --output writes all")
