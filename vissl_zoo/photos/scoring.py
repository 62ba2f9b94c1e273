"""How certain a model is of each photo: every input once, going on from what an earlier call left."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from tqdm import tqdm

from vissl_zoo.cpu.device import take_device
from vissl_zoo.data.quality import Quality, issues
from vissl_zoo.errors import UserError
from vissl_zoo.file_lock import output_locked
from vissl_zoo.inference import Embedded, Loaded, ModelOrName, embed, load_model, model_hash
from vissl_zoo.output import output_file, write_whole
from vissl_zoo.photos.inputs import Inputs, Part, find_inputs
from vissl_zoo.photos.score_table import (
    COLUMNS,
    QUALITY,
    TABLES,
    ordering,
    percentile,
    read_scores,
    write_scores,
)
from vissl_zoo.photos.set_fit import PHOTO_MODEL, SUFFIX, SetFit, fit_set
from vissl_zoo.photos.unfinished import Row, Unfinished
from vissl_zoo.uncertainty.fitted_kappa import FEWEST
from vissl_zoo.uncertainty.reference import FEWEST as FEWEST_OF_A_SET
from vissl_zoo.uncertainty.reference import Reference
from vissl_zoo.uncertainty.view_embeddings import view_pipeline

SCORING = 6  # to be raised when images come to be scored in another way


def score(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    model: ModelOrName | None = None,
    *,
    output: str | os.PathLike | None = None,
    embeddings: str | os.PathLike | None = None,
    fit: bool = True,
    set_uncertainty: bool = False,
    refit: bool = False,
    views: int = 0,
    split: str | None = None,
    image_size: int | None = None,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Score every image: κ, uncertainty, and its rank among the images. Progress is shown on stderr.

    Args:
        paths: a folder, glob, image file, parquet file or Hub data set (org/name), or several of them.
        model: any timm model, which runs where it lies, or the name or folder of one; by default the photo model.
        output: also write the table here, .parquet, .csv or .jsonl; see `score_inputs` for a second call.
        embeddings: also write the embeddings here, .npy: float32 (N, F), NaN where an image failed.
        fit: fit to the images first where they are 200 or more, see `fit_to_inputs`.
        set_uncertainty: ask the whole set with `exact`, too.
        refit: do so anew where an earlier fit lies beside `output`.
        views: random views of each image that `set_uncertainty` looks at besides; each costs as much as the image.
        split: of data sets with splits, the one to score; by default all.
        image_size: side of the images in pixels; by default what the model was trained at.
        exact: decode at full size and compute in float32, for numbers that do not depend on the machine.
        batch_size: images of one forward pass; chosen by default.
        workers: threads that decode; chosen by default.

    Returns:
        One row an image, also for one that cannot be read: path; kappa and uncertainty from one clean view, float32,
        NaN where it failed (uncertainty lies in [0, 1], higher is less certain); set_uncertainty, what the whole set
        says, if it was asked; percentile, the rank of the latter, else of the uncertainty, from 0 to 100; width and
        height in pixels; brightness, contrast and sharpness, float32, see `vissl_zoo.data.quality.Quality`; issue, the
        words of dark, bright, blank, blurred and odd size that hold, with commas, or ""; content_hash, 16 hex digits
        of the SHA-256 of the file's bytes, or ""; error; model; model_hash.

    Raises:
        UserError: one line about a path, the model, or a file that cannot be written.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    table_file = output_file(output, "output", TABLES)
    embeddings_file = output_file(embeddings, "embeddings", (".npy",))
    inputs = find_inputs([os.fspath(path) for path in several], split)
    output_file(output, "output", TABLES, inputs.tables)
    with output_locked(table_file):
        fitted = fit_to_inputs(
            model, inputs, image_size=image_size, output=table_file, fit=fit, set_uncertainty=set_uncertainty,
            refit=refit, views=views, exact=exact, workers=workers,
        )  # fmt: skip
        table, _ = score_inputs(
            fitted, inputs,
            output=table_file, embeddings_output=embeddings_file, views=views,
            exact=exact, batch_size=batch_size, workers=workers,
        )  # fmt: skip
    return table


def open_model(model: ModelOrName, image_size: int | None = None) -> Loaded:
    """The model, what to call it and the side of its images; one that is named is loaded onto the device.

    Raises:
        UserError: there is no such model, or it has no κ head.
    """
    loaded = load_model(model, image_size=image_size, device=take_device())
    if getattr(loaded.model, "kappa_head", None) is None:
        raise UserError(
            f"{loaded.name} has no κ head, so it cannot say how certain it is; give it one with `vissl-zoo fit-kappa "
            f"--model {loaded.name} --data.path PHOTOS --output-dir DIR` and take DIR"
        )
    return loaded


def fit_to_inputs(
    model: ModelOrName | None,
    inputs: Inputs,
    *,
    image_size: int | None = None,
    output: Path | None = None,
    fit: bool = True,
    set_uncertainty: bool = False,
    refit: bool = False,
    views: int = 0,
    exact: bool = False,
    workers: int | None = None,
) -> SetFit:
    """Load the model, and fit to the images what they are to be scored with; one that is named goes onto the device.

    The photo model, and a model that has no κ head, get one that is fitted to the images. A set of 200 images or more
    becomes the reference of `set_uncertainty`. The fit lies beside `output`, as NAME.kappa.safetensors.

    Raises:
        UserError: there is no such model, or it has no κ and none is to be fitted; views are asked for without a fit.
    """
    wanted = fit and len(inputs) >= FEWEST_OF_A_SET and (set_uncertainty or not exact)
    if views and not wanted:
        raise UserError(
            f"--views asks the whole set: take {FEWEST_OF_A_SET} images or more, with --exact also --set-uncertainty, "
            "and no --no-fit"
        )
    opened = functools.partial(load_model, device=take_device()) if fit else open_model
    loaded = opened(PHOTO_MODEL if model is None else model, image_size=image_size)
    headless = getattr(loaded.model, "kappa_head", None) is None
    if headless and len(inputs) < FEWEST:
        raise UserError(
            f"{loaded.name} has no κ head, and κ is fitted to {FEWEST} images or more, not {len(inputs)}; name a model "
            "that has one, or leave --model out"
        )
    if not (wanted or headless):
        return SetFit(loaded, None, "")
    file = None if output is None else output.with_name(output.stem + SUFFIX)
    fit_head = headless or (model is None and wanted)
    return fit_set(
        loaded,
        inputs,
        fit_head=fit_head,
        ask_set=wanted,
        views=views,
        file=file,
        refit=refit,
        exact=exact,
        workers=workers,
    )


def score_inputs(
    fitted: SetFit,
    inputs: Inputs,
    *,
    output: Path | None = None,
    embeddings_output: Path | None = None,
    embeddings: bool = False,
    views: int = 0,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Score every image, write the files that are asked for, and say on stderr what was taken over and how it goes.

    With an `output` the work is kept in OUTPUT.partial while it lasts, and a call that finds it, or a finished .parquet
    of the same model, scores only what is missing, has changed or had failed.

    Args:
        fitted: a model with a κ head, on the device where it is to run, and the reference of the set, if any.
        inputs: the images.
        output: the table; none is written if None.
        embeddings_output: the .npy of the embeddings.
        embeddings: return the embeddings even if they are not written.
        views: of each image, as the reference was fitted with.
        exact, batch_size, workers: as for `score`.
        shard: its number and how many there are, which the table remembers; the inputs are already its own.

    Returns:
        The scores of the N images and their embeddings (N, F) float32, NaN where one failed; None if not asked for.

    Raises:
        UserError: a file cannot be written.
    """
    loaded, reference = fitted.loaded, fitted.reference
    model, image_size = loaded.model, loaded.image_size
    wanted = embeddings or embeddings_output is not None
    identity = settings_of(fitted, views=views, exact=exact)
    rows: dict[str, Row] = {}
    with contextlib.nullcontext() if output is None else Unfinished(output, identity) as unfinished:
        if unfinished is not None and output is not None:
            rows = _usable(_earlier(unfinished, output, identity, wanted), inputs, model, wanted)
        with tqdm(
            total=len(inputs), initial=len(rows), desc="scoring", unit=" images", smoothing=0.05
        ) as bar:
            for part in inputs.parts:
                missing = np.array(
                    [i for i, path in enumerate(part.paths) if path not in rows], dtype=np.int64
                )
                if not len(missing):
                    continue
                options: Any = {"exact": exact, "batch_size": batch_size, "workers": workers}
                options["measured"] = True
                if views:
                    options |= {"views": view_pipeline(model, image_size, views, seed=1), "clean": True}
                for said in embed(model, part.table, image_size, rows=missing, **options):
                    scored = _rows(part, said, wanted, reference)
                    rows |= {row.path: row for row in scored}
                    if unfinished is not None:
                        unfinished.add(scored)
                    bar.update(len(scored))
    ordered = [rows[path] for part in inputs.parts for path in part.paths]
    table = _table(ordered, loaded.name, identity["model_hash"])
    features = np.stack([row.embedding for row in ordered if row.embedding is not None]) if wanted else None
    stamps = _packed(np.array([row.stamp for row in ordered], dtype=np.int64))
    memory = {**table.attrs, "settings": identity, "stamps": stamps}
    if shard is not None:
        memory["shard"] = shard
    if embeddings_output is not None and features is not None:
        write_whole(embeddings_output, lambda path: np.save(path, features, allow_pickle=False))
        memory["embeddings"] = [os.path.abspath(embeddings_output), *_stamp(embeddings_output)]
    if output is not None and unfinished is not None:
        write_scores(output, table, memory)
        unfinished.remove()
    return table, features


def settings_of(fitted: SetFit, *, views: int, exact: bool) -> dict[str, Any]:
    """What a table remembers of how it was scored: a later call takes over rows under the same settings alone."""
    return {
        "model_hash": model_hash(fitted.loaded.model), "scoring": SCORING, "image_size": fitted.loaded.image_size,
        "exact": exact, "fit": fitted.key, "views": views,
    }  # fmt: skip


def is_finished(output: Path, settings: dict[str, Any], inputs: Inputs, embeddings: Path | None) -> bool:
    """Whether a table has all images as they are now, scored under these settings and none failed.

    Its embeddings are then where they are to be, if they are wanted.
    """
    try:
        table = read_scores(os.fspath(output))
        memory = table.attrs
        written = embeddings is None or memory["embeddings"] == [
            os.path.abspath(embeddings),
            *_stamp(embeddings),
        ]
        same = memory["settings"] == settings and memory["folder"] == os.getcwd() and written
        return (
            same
            and memory["stamps"] == _packed(np.concatenate([part.stamps for part in inputs.parts]))
            and table["path"].tolist() == [path for part in inputs.parts for path in part.paths]
            and bool(table["error"].isna().all())
        )
    except (UserError, OSError, KeyError):  # it is absent, damaged or of another kind
        return False


def _packed(stamps: np.ndarray) -> str:
    return base64.b64encode(stamps.astype("<i8").tobytes()).decode()


def _rows(part: Part, said: Embedded, wanted: bool, reference: Reference | None) -> list[Row]:
    """What to remember of a batch, with the embeddings if they are wanted."""
    columns = said.embedding if said.embedding.ndim == 3 else said.embedding[None]  # clean, and views
    kappa, uncertainty = (np.atleast_2d(values)[0] for values in (said.kappa, said.uncertainty))
    told = np.full(len(kappa), np.nan, dtype=np.float32)
    good = np.isfinite(kappa)
    if reference is not None and good.any():
        told[good] = reference.uncertainty(columns[:, good].swapaxes(0, 1), kappa[good])
    assert said.pixels is not None  # they were asked for
    quality, hashes = said.pixels
    found = []
    for i, (row, error) in enumerate(zip(said.rows.tolist(), said.errors, strict=True)):
        height, width = said.sizes[i].tolist()
        scores = float(kappa[i]), float(uncertainty[i]), float(told[i])
        embedding = columns[0, i] if wanted else None
        line = None if error is None else " ".join(error.split())
        pixels = *quality[i].tolist(), width, height, hashes[i]
        known: Any = part.paths[row], int(part.stamps[row]), *scores, *pixels, embedding, line
        found.append(Row._make(known))
    return found


def _table(rows: list[Row], name: str, hashed: str) -> pd.DataFrame:
    """The scores in the order of the inputs."""
    columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
    known = {side: pd.Series(columns[side], dtype="Int64") for side in ("width", "height")}
    numbers = ("kappa", "uncertainty", "set_uncertainty", *QUALITY)
    scores = {n: np.array(columns[n], dtype=np.float32) for n in numbers}
    said = zip(*(scores[n] for n in QUALITY), columns["width"], columns["height"], strict=True)
    words = [issues(Quality(*measured), width, height) for *measured, width, height in said]
    values = {
        **columns, **scores, **{side: sizes.mask(sizes == 0) for side, sizes in known.items()},
        "percentile": None, "issue": words, "model": name, "model_hash": hashed,
    }  # fmt: skip
    table = pd.DataFrame({column: values[column] for column in COLUMNS})
    if np.isfinite(scores["set_uncertainty"]).any():
        table.insert(COLUMNS.index("percentile"), "set_uncertainty", scores["set_uncertainty"])
    table["percentile"] = percentile(ordering(table))
    table.attrs = {"folder": os.getcwd(), "images": len(table)}
    return table


def _earlier(unfinished: Unfinished, output: Path, identity: dict[str, Any], wanted: bool) -> Iterator[Row]:
    """What an earlier call left: the rows of a finished table of the same model, and the unfinished work."""
    if unfinished.dropped:
        _say(f"{unfinished.file} was left by another model or other settings: it is not used")
    with contextlib.suppress(UserError):  # of a table that is not there, or is none and will be written over
        table = read_scores(os.fspath(output))
        memory = table.attrs
        if memory.get("settings") == identity and memory["folder"] == os.getcwd():
            stamps = np.frombuffer(base64.b64decode(memory["stamps"]), dtype="<i8").tolist()
            embeddings = _unchanged(memory.get("embeddings")) if wanted else [None] * len(table)
            known: Any = table.assign(stamp=stamps, set_uncertainty=table.get("set_uncertainty", np.nan))
            known = known.fillna({"kappa": 0, "uncertainty": 0, "width": 0, "height": 0, "content_hash": ""})
            columns = [*(known[name] for name in Row._fields[:-2]), embeddings]
            yield from map(Row._make, zip(*columns, [None] * len(table), strict=False))
    yield from unfinished.read()


def _usable(found: Iterator[Row], inputs: Inputs, model: nn.Module, wanted: bool) -> dict[str, Row]:
    """By path, the rows that are whole and of images that are among the inputs and have not changed since."""
    stamps = {p: s for part in inputs.parts for p, s in zip(part.paths, part.stamps.tolist(), strict=True)}
    width = getattr(model, "head_hidden_size", None) or getattr(model, "num_features", None)
    rows = {}
    for row in found:
        fits = not wanted or (row.embedding is not None and len(row.embedding) == width)
        if fits and row.kappa > 0 and row.stamp != 0 and stamps.get(row.path) == row.stamp:
            rows[row.path] = row
    if rows:
        left = "going on with the rest" if len(rows) < len(inputs) else "nothing is left to do"
        _say(f"{len(rows):,} of {len(inputs):,} images were scored before; {left}")
    return rows


def _unchanged(known: list | None) -> np.ndarray | list:
    """The embeddings (N, F) that a finished table was written with, if the file is still the same; else none."""
    try:
        path, *stamp = known or ("",)
        return np.load(path, allow_pickle=False) if stamp == _stamp(path) else []
    except (OSError, ValueError):
        return []


def _stamp(path: str | os.PathLike) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def _say(text: str) -> None:
    print(text, file=sys.stderr)
