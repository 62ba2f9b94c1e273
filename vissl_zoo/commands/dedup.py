"""`vissl-zoo dedup SCORES --embeddings E.npy --threshold 0.95`: near-duplicates, and which of each group to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vissl_zoo.cli import Fraction, ScoresFile, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.output import output_file
from vissl_zoo.photos.cosine_index import PROBES, use_index
from vissl_zoo.photos.duplicates import Groups, group_many, nearest_in, random_cosines
from vissl_zoo.photos.score_table import (
    LISTS,
    candidates,
    embedding_rows,
    largest_first,
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
    reference: str | None = None
    """The table of another set, such as the test images: find what of it is among these, too."""
    reference_embeddings: str | None = None
    """The .npy that `score --embeddings` wrote for the other set, with the same model."""
    output: str | None = None
    """Where the groups go: .parquet, .csv or .jsonl, one row an image with its scores and `group` (empty if it
    repeats none; the largest is 0), `kept`, and `cosine` to the kept one; with --reference also `reference`, the image
    there that it repeats, and `reference_cosine`. `select` and `filter` read it and pass over what is not kept. A .txt
    gets the paths to keep. By default the groups are printed."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a file or a flag."""
    about = "SCORES is a table of scored images. No file is moved or deleted."
    options = parse_flags(Options, Options(), arguments, "vissl-zoo dedup", about)
    output = output_file(options.output, "--output", LISTS, [options.scores, options.reference])
    table = read_scores(options.scores)
    embeddings = read_embeddings(options.embeddings, table, "dedup")
    places = largest_first(table, candidates(table, options.scores))
    print_copies(table.iloc[places])
    groups, found_by = group_many(embeddings, places, options.threshold, centre=options.centre)
    count = groups.group.max(initial=-1) + 1
    repeats = int((groups.group >= 0).sum() - count)
    print(
        f"{len(places):,} images: {count:,} groups of near-duplicates, {repeats:,} images repeat another, "
        f"{int(groups.kept.sum()):,} are left"
    )
    if found_by:
        print(found_by)
    if len(places) > 1:
        cosines = random_cosines(embeddings[places], centre=options.centre)
        median, high = np.quantile(cosines, [0.5, 0.99])
        print(f"cosine of two random images: median {median:.3f}, 99 % below {high:.3f}")
        if high >= options.threshold:
            print(
                f"to this model, images that are no duplicates are this alike: try --threshold above {high:.3f} "
                "or --centre"
            )
    leaked = find_leaks(table, embeddings, places, options)
    if output is None or count <= FEW:
        print_groups(table, groups)
    if output is not None:
        whole = table.assign(
            row=embedding_rows(table),
            group=pd.Series(groups.group, dtype="Int64").mask(groups.group < 0),
            kept=groups.kept & leaked["reference"].isna().to_numpy() if leaked is not None else groups.kept,
            cosine=groups.cosine,
            **({} if leaked is None else leaked),
        )
        write_scores(output, whole.loc[whole["kept"]] if output.suffix.lower() == ".txt" else whole)
        print(f"wrote {output}")


def first_of_each(table: pd.DataFrame) -> pd.Series:
    """The first path of each file's content, by its hash; without the images whose hash is not known."""
    known = table["content_hash"].fillna("").ne("") & ~table["content_hash"].duplicated()
    return table.loc[known].set_index("content_hash")["path"]


def print_copies(table: pd.DataFrame) -> None:
    """Which files are exact copies; `table` has first what would be kept."""
    first = table["content_hash"].map(first_of_each(table))
    copies = table[first.notna() & first.ne(table["path"])]
    if len(copies):
        print(f"{len(copies):,} files are exact copies of another, byte by byte")
    for path, other in zip(copies["path"][:SHOWN], first[copies.index][:SHOWN], strict=True):
        print(f"  {path}  is  {other}")


def find_leaks(
    table: pd.DataFrame, embeddings: np.ndarray, places: np.ndarray, options: Options
) -> pd.DataFrame | None:
    """Which images repeat one of --reference, as `reference` and `reference_cosine`; None where there is none.

    Raises:
        UserError: the other table or its embeddings cannot be read, or they are another model's.
    """
    if options.reference is None:
        return None
    other = read_scores(options.reference)
    theirs = read_embeddings(
        options.reference_embeddings, other, "dedup --reference", "--reference-embeddings"
    )
    models = [set(t["model_hash"].dropna()) for t in (table, other)]
    if theirs.shape[1] != embeddings.shape[1] or (all(models) and models[0] != models[1]):
        raise UserError(f"{options.reference} was scored with another model than {options.scores}")
    known = candidates(other, options.reference)
    probes = PROBES[0] if use_index(len(known)) else 0
    row, cosine = nearest_in(embeddings[places], theirs[known], centre=options.centre, probes=probes)
    named = table["content_hash"].iloc[places].map(first_of_each(other)).to_numpy()
    same = pd.notna(named)
    found = same | (cosine >= np.float32(options.threshold - 1e-6))
    leaked = pd.DataFrame({"reference": None, "reference_cosine": np.nan}, index=table.index, dtype=object)
    nearest = other["path"].to_numpy()[known[row]]
    leaked.loc[table.index[places[found]], "reference"] = np.where(same, named, nearest)[found]
    leaked.loc[table.index[places[found]], "reference_cosine"] = np.minimum(cosine[found], 1)
    print(
        f"{int(found.sum()):,} images repeat one of {options.reference}, {int(same.sum()):,} of them byte by byte"
    )
    for place in places[found][:SHOWN]:
        print(
            f"  {leaked['reference_cosine'][place]:.3f}  {table['path'][place]}  is  {leaked['reference'][place]}"
        )
    return leaked.astype({"reference_cosine": float})


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
