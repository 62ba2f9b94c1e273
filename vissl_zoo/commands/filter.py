"""`vissl-zoo filter SCORES --keep 0.95`: leave out the least certain images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_zoo.cli import Fraction, ScoresFile, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.output import output_file
from vissl_zoo.photos.score_table import LISTS, candidates, read_scores, subset, write_scores


@dataclass(frozen=True)
class Options:
    """How much is kept, and where the names go."""

    scores: ScoresFile = ""
    """The table that `score`, `select` or `dedup` wrote."""
    keep: Fraction = 0.95
    """The fraction of the images to keep, the most certain ones; images without a score are never kept. Uncertain
    images are ambiguous or odd. A blank photo may be certain, since two views of nothing agree: see --no-issues."""
    issues: bool = True
    """Keep photos that have an `issue`, too: dark, bright, blank, blurred or of an odd size."""
    output: str | None = None
    """Where the kept ones go, in their old order: .parquet, .csv or .jsonl with their scores, .txt with the paths
    alone. By default the paths are printed."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a file or a flag."""
    about = "SCORES is a table of scored images. No file is moved or deleted."
    options = parse_flags(Options, Options(), arguments, "vissl-zoo filter", about)
    output = output_file(options.output, "--output", LISTS, [options.scores])
    table = read_scores(options.scores)
    places = candidates(table, options.scores)
    kept = np.sort(places[: max(1, round(options.keep * len(places)))])
    if not options.issues and table["brightness"].isna().all():
        raise UserError(f"{options.scores}: its photos were not measured; score them anew for --no-issues")
    poor = table["issue"].fillna("").ne("").to_numpy()
    kept = kept if options.issues else kept[~poor[kept]]
    if not len(kept):
        raise UserError(f"{options.scores}: every image has an issue")
    if output is None:
        print("\n".join(table["path"].iloc[kept]))
        return
    write_scores(output, subset(table, kept))
    failed = int(table["uncertainty"].isna().sum())
    print(
        f"kept {len(kept):,} of {len(table):,} images"
        + (f" (without a score: {failed:,})" if failed else "")
        + (f"; {int(poor[kept].sum()):,} of them have an issue, see --no-issues" if poor[kept].any() else "")
        + f"\nwrote {output}"
    )
