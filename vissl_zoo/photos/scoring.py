"""How certain a model is of each photo: every input once, going on from what an earlier call left."""

from __future__ import annotations

import base64
import contextlib
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
from vissl_zoo.errors import UserError
from vissl_zoo.inference import Embedded, Loaded, ModelOrName, embed, load_model, model_hash
from vissl_zoo.output import output_file, write_whole
from vissl_zoo.photos.inputs import Inputs, Part, find_inputs
from vissl_zoo.photos.score_table import COLUMNS, TABLES, percentile, read_scores, write_scores
from vissl_zoo.photos.unfinished import Row, Unfinished

SCORING = 2  # to be raised when images come to be scored in another way


def score(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    model: ModelOrName,
    *,
    output: str | os.PathLike | None = None,
    embeddings: str | os.PathLike | None = None,
    split: str | None = None,
    image_size: int | None = None,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Score every image: κ, uncertainty, and its rank among the images. Progress is shown on stderr.

    Args:
        paths: a folder, glob, image file, parquet file or Hub data set (org/name), or several of them.
        model: a model with a κ head, which runs where it lies, or the name or folder of one.
        output: also write the table here, .parquet, .csv or .jsonl; see `score_inputs` for a second call.
        embeddings: also write the embeddings here, .npy: float32 (N, F), NaN where an image failed.
        split: of data sets with splits, the one to score; by default all.
        image_size: side of the images in pixels; by default what the model was trained at.
        exact: decode at full size and compute in float32, for numbers that do not depend on the machine.
        batch_size: images of one forward pass; chosen by default.
        workers: threads that decode; chosen by default.

    Returns:
        One row an image, also for one that cannot be read: path; kappa and uncertainty from one clean view, float32,
        NaN where it failed (uncertainty lies in [0, 1], higher is less certain); percentile, the rank of the
        uncertainty from 0 to 100; width and height in pixels; error; model; model_hash.

    Raises:
        UserError: one line about a path, the model, or a file that cannot be written.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    table_file = output_file(output, "output", TABLES)
    embeddings_file = output_file(embeddings, "embeddings", (".npy",))
    inputs = find_inputs([os.fspath(path) for path in several], split)
    table, _ = score_inputs(
        open_model(model, image_size), inputs,
        output=table_file, embeddings_output=embeddings_file,
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
        name = loaded.name
        raise UserError(
            f"{name} has no κ head, so it cannot say how certain it is; give it one with `vissl-zoo fit-kappa "
            f"--model {name} --data.path PHOTOS --output-dir DIR` and take DIR"
        )
    return loaded


def score_inputs(
    loaded: Loaded,
    inputs: Inputs,
    *,
    output: Path | None = None,
    embeddings_output: Path | None = None,
    embeddings: bool = False,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Score every image, write the files that are asked for, and say on stderr what was taken over and how it goes.

    With an `output` the work is kept in OUTPUT.partial while it lasts, and a call that finds it, or a finished .parquet
    of the same model, scores only what is missing, has changed or had failed.

    Args:
        loaded: a model with a κ head, on the device where it is to run.
        inputs: the images.
        output: the table; none is written if None.
        embeddings_output: the .npy of the embeddings.
        embeddings: return the embeddings even if they are not written.
        exact, batch_size, workers: as for `score`.

    Returns:
        The scores of the N images and their embeddings (N, F) float32, NaN where one failed; None if not asked for.

    Raises:
        UserError: a file cannot be written.
    """
    model, image_size = loaded.model, loaded.image_size
    wanted = embeddings or embeddings_output is not None
    identity = {"model_hash": model_hash(model), "scoring": SCORING, "image_size": image_size, "exact": exact}
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
                for said in embed(model, part.table, image_size, rows=missing, **options):
                    scored = _rows(part, said, wanted)
                    rows |= {row.path: row for row in scored}
                    if unfinished is not None:
                        unfinished.add(scored)
                    bar.update(len(scored))
    ordered = [rows[path] for part in inputs.parts for path in part.paths]
    table = _table(ordered, loaded.name, identity["model_hash"])
    features = np.stack([row.embedding for row in ordered if row.embedding is not None]) if wanted else None
    stamps = np.array([row.stamp for row in ordered], dtype="<i8").tobytes()
    memory = {**table.attrs, "settings": identity, "stamps": base64.b64encode(stamps).decode()}
    if embeddings_output is not None and features is not None:
        write_whole(embeddings_output, lambda path: np.save(path, features, allow_pickle=False))
        memory["embeddings"] = [os.path.abspath(embeddings_output), *_stamp(embeddings_output)]
    if output is not None and unfinished is not None:
        write_scores(output, table, memory)
        unfinished.remove()
    return table, features


def _rows(part: Part, said: Embedded, wanted: bool) -> list[Row]:
    """What to remember of a batch, with the embeddings if they are wanted."""
    assert said.kappa is not None  # the model has a κ head
    assert said.uncertainty is not None
    found = []
    for i, (row, error) in enumerate(zip(said.rows.tolist(), said.errors, strict=True)):
        height, width = said.sizes[i].tolist()
        scores = float(said.kappa[i]), float(said.uncertainty[i])
        embedding = said.embedding[i] if wanted else None
        line = None if error is None else " ".join(error.split())
        found.append(Row(part.paths[row], int(part.stamps[row]), *scores, width, height, embedding, line))
    return found


def _table(rows: list[Row], name: str, hashed: str) -> pd.DataFrame:
    """The scores in the order of the inputs."""
    columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True))
    known = {side: pd.Series(columns[side], dtype="Int64") for side in ("width", "height")}
    scores = {n: np.array(columns[n], dtype=np.float32) for n in ("kappa", "uncertainty")}
    values = {
        **columns, **scores, **{side: sizes.mask(sizes == 0) for side, sizes in known.items()},
        "percentile": percentile(pd.Series(scores["uncertainty"])), "model": name, "model_hash": hashed,
    }  # fmt: skip
    table = pd.DataFrame({column: values[column] for column in COLUMNS})
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
            columns = [
                table["path"],
                stamps,
                *(table[name].fillna(0) for name in Row._fields[2:6]),
                embeddings,
            ]
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
