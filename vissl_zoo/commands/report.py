"""`vissl-zoo report SCORES --embeddings E.npy --output report.html`: all about a folder of photos on one page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from vissl_zoo.cli import Count, Fraction, ScoresFile, Seed, parse_flags
from vissl_zoo.output import output_file
from vissl_zoo.photos.duplicates import group_many
from vissl_zoo.photos.page import GALLERY, Page, duplicate_groups, map_points
from vissl_zoo.photos.score_table import certain_first, largest_first, read_embeddings, read_scores


@dataclass(frozen=True)
class Options:
    """What the page shows, and where it goes."""

    scores: ScoresFile = ""
    """The table that `score` wrote."""
    embeddings: str | None = None
    """The .npy that `score --embeddings` wrote; without it there is no map and nothing about duplicates."""
    output: str = "report.html"
    """The page, .html, with the images in it; it needs no network."""
    count: Count = GALLERY
    """Images at each end of the order."""
    map: Literal["tsne", "pca"] = "tsne"
    """How the embedding is laid out in the plane."""
    threshold: Fraction = 0.95
    """Cosine from which two images are near-duplicates, as for `dedup`."""
    centre: bool = False
    """Subtract the mean embedding before duplicates are looked for, as for `dedup`."""
    seed: Seed = 0
    """Of the map, and of the sample that it shows of many images."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about a file or a flag."""
    about = "SCORES is a table of scored images."
    options = parse_flags(Options, Options(), arguments, "vissl-zoo report", about)
    output = output_file(options.output, "--output", (".html", ".htm"), [options.scores, options.embeddings])
    table = read_scores(options.scores)
    page = Page(table, shlex.join(["vissl-zoo", "report", *arguments]), options.count)
    parts = {}
    if options.embeddings is not None:
        embeddings = read_embeddings(options.embeddings, table, "report")
        order = largest_first(table, certain_first(table))  # as `dedup` keeps them
        parts = map_points(page, embeddings, options.map, options.seed)
        groups, found_by = group_many(embeddings, order, options.threshold, centre=options.centre)
        parts |= duplicate_groups(page, groups, options.threshold, found_by)
    page.write(output, **parts)
    print(f"wrote {output}")
