"""`vissl-zoo report SCORES --embeddings E.npy --output report.html`: all about a folder of photos on one page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from vissl_zoo.cli import ScoresFile, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.photos.duplicates import find_duplicates
from vissl_zoo.photos.page import GALLERY, Page, duplicate_groups, map_points
from vissl_zoo.photos.score_table import check_output, read_embeddings, read_scores


@dataclass(frozen=True)
class Arguments:
    """What the page shows, and where it goes."""

    scores: ScoresFile = None
    """The table that `score` wrote."""
    embeddings: str | None = None
    """The .npy that `score --embeddings` wrote; without it there is no map and nothing about duplicates."""
    output: str = "report.html"
    """The page, .html, with the images in it; it needs no network."""
    count: int = GALLERY
    """Images at each end of the order."""
    map: Literal["tsne", "pca"] = "tsne"
    """How the embedding is laid out in the plane."""
    threshold: float = 0.95
    """Cosine from which two images are near-duplicates, as for `dedup`."""
    centre: bool = False
    """Subtract the mean embedding before duplicates are looked for, as for `dedup`."""
    seed: int = 0
    """Of the map, and of the sample that it shows of many images."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about a file or a flag.
    """
    about = "SCORES is a table of scored images."
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo report", about)
    if flags.scores is None:
        raise UserError("report needs the SCORES that `vissl-zoo score` wrote (see --help)")
    if flags.count < 1 or not 0 <= flags.seed < 2**32 or not 0 < flags.threshold <= 1:
        raise UserError("--count must be at least 1, --seed in [0, 2**32), --threshold a cosine in (0, 1]")
    output = check_output(flags.output, "--output", (".html", ".htm"))
    scores = read_scores(flags.scores)
    page = Page(scores, shlex.join(["vissl-zoo", "report", *arguments]), flags.count)
    parts = {}
    if flags.embeddings is not None:
        embeddings = read_embeddings(flags.embeddings, scores, "report")
        parts = map_points(page, embeddings, flags.map, flags.seed)
        if flags.centre and len(scores.good):
            embeddings = embeddings - embeddings[scores.good].mean(axis=0)
        groups = find_duplicates(embeddings, scores.order, flags.threshold)
        parts |= duplicate_groups(page, groups, flags.threshold)
    page.write(output, **parts)
    print(f"wrote {output}")
