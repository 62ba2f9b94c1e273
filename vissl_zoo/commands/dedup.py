"""`vissl-zoo dedup SCORES --embeddings E.npy --threshold 0.95`: near-duplicates, and which of each group to keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vissl_zoo.cli import ScoresFile, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.photos.duplicates import Groups, find_duplicates, random_cosines
from vissl_zoo.photos.score_table import (
    Scores,
    check_output,
    or_none,
    read_embeddings,
    read_scores,
    write_columns,
)

LISTS = (".parquet", ".csv", ".jsonl", ".txt")
SHOWN = 10  # groups that are printed
FEW = 3  # groups that are printed also when they are written


@dataclass(frozen=True)
class Arguments:
    """What counts as a duplicate, and where the groups go."""

    scores: ScoresFile = None
    """The table that `score`, `select` or `filter` wrote."""
    embeddings: str | None = None
    """The .npy that `score --embeddings` wrote."""
    threshold: float = 0.95
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
    """Run the subcommand.

    Raises:
        UserError: one line about a file or a flag.
    """
    about = "SCORES is a table of scored images. No file is moved or deleted."
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo dedup", about)
    if flags.scores is None:
        raise UserError("dedup needs the SCORES that `vissl-zoo score` wrote (see --help)")
    if not 0 < flags.threshold <= 1:
        raise UserError(f"--threshold must be a cosine in (0, 1], not {flags.threshold}")
    output = check_output(flags.output, "--output", LISTS, [flags.scores])
    scores = read_scores(flags.scores)
    embeddings = read_embeddings(flags.embeddings, scores, "dedup")
    candidates = scores.order[scores.kept[scores.order]]
    if flags.centre and len(candidates):
        embeddings = embeddings - embeddings[candidates].mean(axis=0)
    groups = find_duplicates(embeddings, candidates, flags.threshold)
    # What has no score, or was dropped before, is not kept now.
    groups = groups._replace(kept=groups.kept & np.isin(np.arange(len(scores)), candidates))
    count = groups.group.max(initial=-1) + 1
    repeats = int((groups.group >= 0).sum() - count)
    print(
        f"{len(candidates):,} images: {count:,} groups of near-duplicates, {repeats:,} images repeat another, "
        f"{int(groups.kept.sum()):,} are left"
    )
    if len(candidates) > 1:
        cosines = random_cosines(embeddings[candidates])
        median, high = np.quantile(cosines, [0.5, 0.99])
        print(f"cosine of two random images: median {median:.3f}, 99 % below {high:.3f}")
        if high >= flags.threshold:
            print(
                f"to this model, images that are no duplicates are this alike: try --threshold above {high:.3f} "
                "or --centre"
            )
    if output is None:
        print_groups(scores, groups)
    else:
        if count <= FEW:
            print_groups(scores, groups)
        write_groups(scores, groups, output)
        print(f"wrote {output}")


def print_groups(scores: Scores, groups: Groups) -> None:
    """The first groups, the kept image of each first."""
    count = int(groups.group.max(initial=-1) + 1)
    for number in range(min(count, SHOWN)):
        members = np.flatnonzero(groups.group == number)
        print(f"\ngroup {number}: {len(members)} images")
        for place in members[np.lexsort((-groups.cosine[members], ~groups.kept[members]))]:
            print(
                f"  {'kept ' if groups.kept[place] else f'{groups.cosine[place]:.3f}'}  {scores.paths[place]}"
            )
    if count > SHOWN:
        print(f"\nand {count - SHOWN:,} more groups; --output writes all")


def write_groups(scores: Scores, groups: Groups, output: Path) -> None:
    """One row an image; a .txt gets the paths of the kept ones."""
    if output.suffix.lower() == ".txt":
        write_columns(output, {"path": [scores.paths[place] for place in np.flatnonzero(groups.kept)]})
        return
    columns = {
        **scores.columns(),
        "row": scores.rows.tolist(),
        "group": [None if g < 0 else g for g in groups.group.tolist()],
        "kept": groups.kept.tolist(),
        "cosine": or_none(groups.cosine),
    }
    memory = {name: scores.extra[name] for name in ("folder", "images") if scores.extra.get(name) is not None}
    write_columns(output, columns, memory)
