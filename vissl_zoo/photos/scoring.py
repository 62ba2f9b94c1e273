"""Score all inputs, image by image, going on from what an earlier call left."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from vissl_zoo.errors import UserError
from vissl_zoo.inference import model_hash
from vissl_zoo.photos.engine import Scored, score_images
from vissl_zoo.photos.inputs import Inputs
from vissl_zoo.photos.journal import Journal, Row
from vissl_zoo.photos.score_table import Scores, read_scores, write_atomically, write_columns

SCORING = 1  # to be raised when images come to be scored in another way
FLUSH_SECONDS = 5.0  # what a killed run loses at most, besides the batch at hand


@dataclass(frozen=True)
class Settings:
    """How images are scored; `image_size` is the side of the crop in pixels, the rest is as for `score_images`."""

    image_size: int
    views: int = 1
    seed: int = 0
    exact: bool = False
    batch_size: int | None = None
    workers: int | None = None

    def identity(self, model: nn.Module) -> dict[str, Any]:
        """What two calls must have in common for one to go on with the other's work."""
        shared = {name: getattr(self, name) for name in ("image_size", "views", "seed", "exact")}
        return {"model_hash": model_hash(model), "scoring": SCORING, **shared}


class _Work:
    """The columns that are being filled, one place for each image of the inputs."""

    def __init__(self, inputs: Inputs, embeddings: bool):
        self.inputs, self.wants_embeddings = inputs, embeddings
        self.paths = [path for part in inputs.parts for path in part.paths]
        self.stamps = np.concatenate([part.stamps for part in inputs.parts])
        count = len(self.paths)
        self.kappa, self.uncertainty = (np.full(count, np.nan, dtype=np.float32) for _ in range(2))
        self.sizes = np.zeros((count, 2), dtype=np.int64)
        self.errors: list[str | None] = [None] * count
        self.done = np.zeros(count, dtype=bool)
        self.embeddings: np.ndarray | None = None  # (N, F), made when F is known
        self._place = {path: place for place, path in enumerate(self.paths)}

    def reuse(self, row: Row) -> None:
        """Take over an earlier score, if the image is among the inputs and has not changed since."""
        place = self._place.get(row.path)
        usable = np.isfinite(row.uncertainty) and (row.embedding is not None or not self.wants_embeddings)
        if place is None or not usable or self.stamps[place] != row.stamp or row.stamp == 0:
            return
        self.kappa[place], self.uncertainty[place] = row.kappa, row.uncertainty
        self.sizes[place] = row.height, row.width
        self.done[place] = True
        if self.wants_embeddings:
            self._embed(np.array([place]), row.embedding[None])

    def fill(self, first: int, scored: Scored) -> np.ndarray:
        """Take a batch of the part whose first image is at `first`; returns its places (B,)."""
        places = first + scored.rows
        self.kappa[places], self.uncertainty[places] = scored.kappa, scored.uncertainty
        self.sizes[places] = scored.sizes
        self.done[places] = True
        for place, error in zip(places, scored.errors, strict=True):
            self.errors[place] = None if error is None else " ".join(error.split())
        if self.wants_embeddings:
            self._embed(places, scored.embedding)
        return places

    def row(self, place: int) -> Row:
        """What to remember of an image."""
        height, width = self.sizes[place].tolist()
        embedding = self.embeddings[place] if self.wants_embeddings else None
        scores = float(self.kappa[place]), float(self.uncertainty[place])
        return Row(self.paths[place], int(self.stamps[place]), *scores, height, width, embedding)

    def _embed(self, places: np.ndarray, values: np.ndarray) -> None:
        if self.embeddings is None:
            self.embeddings = np.full((len(self.paths), values.shape[1]), np.nan, dtype=np.float32)
        self.embeddings[places] = values


def score_inputs(
    model: nn.Module,
    name: str,
    inputs: Inputs,
    settings: Settings,
    *,
    output: Path | None = None,
    embeddings_output: Path | None = None,
    embeddings: bool = False,
) -> tuple[Scores, np.ndarray | None]:
    """Score every image, write the files that are asked for, and say on stderr what was taken over and how it goes.

    With an `output` the work is kept in OUTPUT.partial while it lasts, and a call that finds it, or a finished .parquet
    of the same model, scores only what is missing, has changed or had failed.

    Args:
        model: with `represent`, on the device where it is to run.
        name: what to call it in the output.
        inputs: the images.
        settings: how to score them.
        output: the table; none is written if None.
        embeddings_output: the .npy of the embeddings.
        embeddings: return the embeddings even if they are not written.

    Returns:
        The scores of the N images and their embeddings (N, F) float32, NaN where one failed; None if not asked for.

    Raises:
        UserError: the model has no κ head, or a file cannot be written.
    """
    if getattr(model, "kappa_head", None) is None:
        raise UserError(
            f"{name} has no κ head, so it cannot say how certain it is; give it one with `vissl-zoo fit-kappa "
            f"--model {name} --data.path PHOTOS --output-dir DIR` and score with --model DIR"
        )
    work = _Work(inputs, embeddings or embeddings_output is not None)
    identity = settings.identity(model)
    journal = None if output is None else Journal(output, identity)
    if journal is not None:
        _take_over(work, journal, output, identity)
    _score_missing(model, work, settings, journal)
    scores = _as_scores(work, name, identity)
    if work.wants_embeddings and work.embeddings is None:  # every image failed
        work.embeddings = np.full((len(scores), model.num_features), np.nan, dtype=np.float32)
    if embeddings_output is not None:
        write_atomically(embeddings_output, lambda path: _save(path, work.embeddings))
        stat = embeddings_output.stat()
        scores.extra["embeddings"] = [
            os.path.abspath(embeddings_output), stat.st_size, stat.st_mtime_ns,
        ]  # fmt: skip
    if output is not None:
        write_columns(output, scores.columns(), scores.extra)
        journal.remove()
    return scores, work.embeddings


def _save(path: Path, embeddings: np.ndarray) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add .npy to it
        np.save(file, embeddings, allow_pickle=False)


def _take_over(work: _Work, journal: Journal, output: Path, identity: dict) -> None:
    if journal.dropped:
        _say(f"{journal.folder} was left by another model or other settings: it is not used")
    for row in _finished_rows(output, identity, work.wants_embeddings):
        work.reuse(row)
    for row in journal.read():
        work.reuse(row)
    if work.done.any():
        left = "going on with the rest" if not work.done.all() else "nothing is left to do"
        _say(f"{work.done.sum():,} of {len(work.paths):,} images were scored before; {left}")


def _finished_rows(output: Path, identity: dict, wants: bool) -> Iterator[Row]:
    """Rows of a finished table of the same model, with embeddings if they are still those of that call."""
    if output.suffix.lower() != ".parquet" or not output.is_file():
        return
    try:
        scores = read_scores(os.fspath(output))
    except UserError:  # something else of that name, which will be written over
        return
    extra = scores.extra
    if extra.get("settings") != identity or extra.get("folder") != os.getcwd():
        return
    stamps = np.frombuffer(base64.b64decode(extra["stamps"]), dtype="<i8")
    embeddings = None
    if wants:
        embeddings = _unchanged_embeddings(extra.get("embeddings"))
        if embeddings is None:
            return  # all must be scored again for their embeddings
    for i in scores.good:
        size = int(scores.height[i]), int(scores.width[i])
        embedding = None if embeddings is None else embeddings[i]
        yield Row(scores.paths[i], int(stamps[i]), scores.kappa[i], scores.uncertainty[i], *size, embedding)


def _unchanged_embeddings(known: list | None) -> np.ndarray | None:
    """The embeddings (N, F) that a finished table was written with, if the file is still the same."""
    try:
        path, *stamp = known or ("",)
        stat = os.stat(path)
        return np.load(path, allow_pickle=False) if stamp == [stat.st_size, stat.st_mtime_ns] else None
    except (OSError, ValueError):
        return None


def _score_missing(model: nn.Module, work: _Work, settings: Settings, journal: Journal | None) -> None:
    options = {n: getattr(settings, n) for n in ("views", "seed", "exact", "batch_size", "workers")}
    flushed = time.monotonic()
    first = 0
    bar = tqdm(
        total=len(work.paths), initial=int(work.done.sum()), desc="scoring", unit=" images", smoothing=0.05
    )
    try:
        for part in work.inputs.parts:
            rows = np.flatnonzero(~work.done[first : first + len(part.paths)])
            if len(rows):
                for scored in score_images(model, part.table, settings.image_size, rows=rows, **options):
                    places = work.fill(first, scored)
                    for place in places if journal is not None else ():
                        if work.errors[place] is None:
                            journal.add(work.row(place))
                    bar.update(len(places))
                    if journal is not None and time.monotonic() - flushed > FLUSH_SECONDS:
                        journal.flush()
                        flushed = time.monotonic()
            first += len(part.paths)
    finally:  # also on Ctrl-C
        bar.close()
        if journal is not None:
            journal.flush()


def _as_scores(work: _Work, name: str, identity: dict) -> Scores:
    count = len(work.paths)
    folder = os.getcwd()
    extra = {
        "settings": identity,
        "images": count,
        "folder": folder,
        "stamps": base64.b64encode(work.stamps.astype("<i8").tobytes()).decode(),
    }
    return Scores(
        work.paths, work.kappa, work.uncertainty, work.sizes[:, 1], work.sizes[:, 0], work.errors,
        np.arange(count), np.ones(count, dtype=bool), name, identity["model_hash"], folder, extra,
    )  # fmt: skip


def _say(text: str) -> None:
    print(text, file=sys.stderr)
