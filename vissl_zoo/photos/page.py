"""The HTML pages: one file each, with the images in it, that opens without a network."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from vissl_zoo.errors import UserError
from vissl_zoo.output import short_number, write_whole
from vissl_zoo.photos.duplicates import Groups
from vissl_zoo.photos.inputs import read_image
from vissl_zoo.photos.score_table import certain_first
from vissl_zoo.photos.selection import unit_length

GALLERY = 24  # images at each end
FAILURES = 200  # that are listed
GROUPS, GROUP_IMAGES = 20, 8  # groups of duplicates, and images of one, that are shown
MAP_POINTS, MAP_PICTURES = 2000, 400  # points of the map, and those of them that show a picture
_SIDE, _SMALL_SIDE = 320, 96
_BARS = 32
FEWEST = 10  # images; of fewer t-SNE has nothing to say
_COMPONENTS = 50  # that t-SNE starts from
_ASPECTS = (0.5, 2.4)


class Picture(NamedTuple):
    """An image on a page: `source` is a data URL, None where it cannot be read any more."""

    path: str
    name: str
    source: str | None
    aspect: float
    note: str


class Bar(NamedTuple):
    """A bar of the histogram: places and heights are fractions of the figure, `share` of the way from low to high κ."""

    x: float
    height: float
    share: float
    label: str


class Page:
    """What a page is made from; `report` adds the parts that need embeddings."""

    def __init__(self, table: pd.DataFrame, command: str, count: int = GALLERY):
        """Take the scores, the command line to show, and how many images stand at each end of the order."""
        self.table, self.command, self.count = table, command, count
        self.paths: list[str] = table["path"].tolist()
        self.kappa: list[float] = table["kappa"].astype(float).tolist()
        self.issues: list[str] = table["issue"].fillna("").tolist() if "issue" in table else [""] * len(table)
        self._pictures: dict[tuple[int, int], tuple[str, float] | None] = {}

    def write(self, file: Path, **parts: object) -> None:
        """Write the page of galleries, histogram and failures, and what `parts` hold (see the template).

        Raises:
            UserError: it cannot be written.
        """
        table, order = self.table, certain_first(self.table)
        count = min(self.count, -(-len(order) // 2))
        failed = np.flatnonzero(table["uncertainty"].isna()).tolist()
        errors = table["error"].fillna("no score").tolist()
        kappa = np.array(self.kappa)[order]
        marked = np.flatnonzero(np.array(self.issues) != "")
        loader = jinja2.PackageLoader("vissl_zoo.photos", "")
        environment = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )  # fmt: skip
        nothing = {"points": [], "map_about": "", "groups": [], "groups_about": ""}
        html = environment.get_template("page.html.jinja").render(
            total=len(table),
            scored=len(order),
            model=table["model"][0],
            model_hash=table["model_hash"][0],
            command=self.command,
            certain=self.pictures(order[:count]),
            uncertain=self.pictures(order[::-1][: len(order) - count][: self.count]),
            asked="set_uncertainty" in table,
            poor=self.pictures(marked[: self.count]),
            marked=len(marked),
            spread=[short_number(q) for q in np.quantile(kappa, [0.1, 0.5, 0.9])] if len(kappa) else None,
            bars=histogram(kappa),
            ends=[short_number(kappa.min()), short_number(kappa.max())] if len(kappa) else None,
            failures=[(self.paths[i], errors[i]) for i in failed[:FAILURES]],
            failed=len(failed),
            **{**nothing, **parts},
        )
        write_whole(file, lambda path: path.write_bytes(html.encode("utf-8", "replace")))

    def pictures(self, places: np.ndarray, notes: Sequence[str] | None = None) -> list[Picture]:
        """The images at `places` as thumbnails, with a note each."""
        found = []
        for i, place in enumerate(places.tolist()):
            source, aspect = self.thumbnail(place, _SIDE) or (None, 1.0)
            path = self.paths[place]
            note = notes[i] if notes else self.note(place)
            found.append(Picture(path, os.path.basename(path) or path, source, aspect, note))
        return found

    def note(self, place: int) -> str:
        """What stands below an image: its uncertainty in the set, κ, and what is wrong with its pixels."""
        told = self.table["set_uncertainty"].iloc[place] if "set_uncertainty" in self.table else np.nan
        shown = "" if np.isnan(told) else f"{told:.2f}, "
        issue = self.issues[place]
        return f"{shown}κ {short_number(self.kappa[place])}" + (f", {issue}" if issue else "")

    def thumbnail(self, place: int, side: int) -> tuple[str, float] | None:
        """(JPEG of at most `side` pixels as a data URL, width / height within `_ASPECTS`), None if unreadable."""
        if (place, side) not in self._pictures:
            try:
                image = read_image(self.paths[place], self.table.attrs["folder"], (side, side))
            except UserError:
                self._pictures[place, side] = None
            else:
                self._pictures[place, side] = _as_data_url(image, side)
        return self._pictures[place, side]


def map_points(page: Page, embeddings: np.ndarray, how: str, seed: int = 0) -> dict[str, object]:
    """The map of the images that have a score: `points` and `map_about` for the page.

    Of more than `MAP_POINTS` a sample is drawn by the seed, and `MAP_PICTURES` of them, spread over κ, show a picture.
    """
    good = np.flatnonzero(page.table["uncertainty"].notna())
    shown = np.sort(np.random.default_rng(seed).permutation(good)[:MAP_POINTS])
    if len(shown) < 2:
        return {}
    places = project(embeddings[shown], how, seed)
    rank = page.table["percentile"].to_numpy(np.float64)[shown]
    by_rank = np.argsort(rank, kind="stable")
    pictured = set(by_rank[np.unique(np.linspace(0, len(shown) - 1, MAP_PICTURES).astype(int))].tolist())
    points = []
    for i, place in enumerate(shown.tolist()):
        path, thumbnail = page.paths[place], page.thumbnail(place, _SMALL_SIDE) if i in pictured else None
        points.append({
            "x": round(float(places[i, 0]), 4), "y": round(1 - float(places[i, 1]), 4),
            "share": round(1 - rank[i] / 100, 3), "path": path, "name": os.path.basename(path),
            "kappa": short_number(page.kappa[place]), "source": thumbnail and thumbnail[0],
        })  # fmt: skip
    what = "principal components" if how == "pca" else "t-SNE"
    sample = "" if len(shown) == len(good) else f" of {len(good):,} images, drawn at random"
    return {"points": points, "map_about": f"{len(points):,} points{sample}, laid out by {what}."}


def project(embeddings: np.ndarray, how: str = "tsne", seed: int = 0) -> np.ndarray:
    """Lay N embeddings out in the plane.

    Args:
        embeddings: (N, F), finite; they are scaled to length 1.
        how: "tsne" (van der Maaten & Hinton, 2008) from the first 50 principal components, started at the first two,
            or "pca", the first two themselves. Fewer than `FEWEST` images get "pca".
        seed: of t-SNE. The same input gives the same map on the same machine.

    Returns:
        (N, 2) float64, each axis scaled to [0, 1]; 0.5 where all are equal.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    points = unit_length(embeddings).astype(np.float64)
    points = points - points.mean(axis=0)
    components = min(_COMPONENTS, *points.shape)
    reduced = np.zeros((len(points), 2))
    if np.ptp(points, axis=0).max() > 0:
        found = PCA(components, svd_solver="full", random_state=seed).fit_transform(points)
        reduced[:, : found.shape[1]] = found[:, :2]
        if how == "tsne" and len(points) >= FEWEST:
            perplexity = min(30.0, (len(points) - 1) / 3)
            start = 1e-4 * reduced / max(reduced[:, 0].std(), 1e-12)
            reduced = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(found)
    low, extent = reduced.min(axis=0), np.ptp(reduced, axis=0)
    return np.where(extent > 0, (reduced - low) / np.where(extent > 0, extent, 1), 0.5)


def duplicate_groups(page: Page, groups: Groups, threshold: float, found_by: str = "") -> dict[str, object]:
    """The section of near-duplicates: `groups` and `groups_about`, with how they were found, for the page."""
    count = groups.group.max(initial=-1) + 1
    repeats = int((~groups.kept).sum())
    about = f"{count:,} groups at a cosine of {threshold:g} or more; {repeats:,} images repeat another one."
    if count > GROUPS:
        about += f" The {GROUPS} largest are shown."
    about += f" {found_by}" if found_by else ""
    found = []
    for number in range(min(GROUPS, count)):
        members = groups.members(number)
        notes = ["kept" if groups.kept[m] else f"cosine {groups.cosine[m]:.3f}" for m in members]
        found.append({
            "size": len(members), "pictures": page.pictures(members[:GROUP_IMAGES], notes),
            "more": max(0, len(members) - GROUP_IMAGES),
        })  # fmt: skip
    return {"groups": found, "groups_about": about}


def histogram(kappa: np.ndarray) -> list[Bar]:
    """Bars of κ (N,), all finite; a single bar where all are equal."""
    if not len(kappa):
        return []
    if np.ptp(kappa) <= 1e-6 * np.abs(kappa).max():
        return [Bar(0.4, 1.0, 0.5, f"{len(kappa)} images at {short_number(kappa[0])}")]
    counts, edges = np.histogram(kappa, bins=_BARS)
    centres = (np.arange(_BARS) + 0.5) / _BARS
    return [
        Bar(i / _BARS, c / counts.max(), float(s), f"κ {short_number(a)} to {short_number(b)}: {c} images")
        for i, (c, s, a, b) in enumerate(zip(counts, centres, edges[:-1], edges[1:], strict=True))
    ]


def _as_data_url(image: Image.Image, side: int) -> tuple[str, float]:
    aspect = float(np.clip(image.width / image.height, *_ASPECTS))
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)  # never a side of 0: Pillow keeps one pixel
    said = io.BytesIO()
    image.save(said, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(said.getvalue()).decode()}", aspect
