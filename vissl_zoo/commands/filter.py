"""`vissl-zoo filter SCORES --keep 0.95`: leave out the least certain images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_zoo.cli import ScoresFile, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.photos.score_table import check_output, read_scores

LISTS = (".parquet", ".csv", ".jsonl", ".txt")


@dataclass(frozen=True)
class Arguments:
    """How much is kept, and where the names go."""

    scores: ScoresFile = None
    """The table that `score`, `select` or `dedup` wrote."""
    keep: float = 0.95
    """The fraction of the images to keep, the most certain ones; images without a score are never kept. Uncertain
    images are ambiguous or odd. κ is no detector of blank images: two views of nothing agree, so a blank photo may be
    certain."""
    output: str | None = None
    """Where the kept ones go, in their old order: .parquet, .csv or .jsonl with their scores, .txt with the paths
    alone. By default the paths are printed."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about a file or a flag.
    """
    about = "SCORES is a table of scored images. No file is moved or deleted."
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo filter", about)
    if flags.scores is None:
        raise UserError("filter needs the SCORES that `vissl-zoo score` wrote (see --help)")
    if not 0 < flags.keep <= 1:
        raise UserError(f"--keep must be a fraction in (0, 1], not {flags.keep}")
    output = check_output(flags.output, "--output", LISTS, [flags.scores])
    scores = read_scores(flags.scores)
    candidates = scores.order[scores.kept[scores.order]]
    if not len(candidates):
        raise UserError(f"{flags.scores}: no image has a score")
    kept = np.sort(candidates[: max(1, round(flags.keep * len(candidates)))])
    if output is None:
        print("\n".join(scores.paths[place] for place in kept))
        return
    scores.write(output, kept)
    failed = len(scores) - len(scores.good)
    print(
        f"kept {len(kept):,} of {len(scores):,} images"
        + (f" (without a score: {failed:,})" if failed else "")
        + f"; κ finds ambiguous and odd images, not blank ones\nwrote {output}"
    )
