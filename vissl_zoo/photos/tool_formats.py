"""Scores in the formats that other tools import. Images without a score are left out: these have no place for one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from vissl_zoo.errors import UserError
from vissl_zoo.photos.score_table import Scores, write_atomically

FORMATS = ("fiftyone", "cleanlab", "label-studio", "lightly")


class Exported(NamedTuple):
    """What was written: the files, and one line on how the other tool reads them."""

    files: list[Path]
    hint: str


def export_scores(
    form: str, scores: Scores, places: np.ndarray, file: Path, embeddings: np.ndarray | None = None
) -> Exported:
    """Write the images at `places` for another tool.

    Args:
        form: one of `FORMATS`.
        scores: of N images.
        places: (M,) which of them, in which order; those without a score are left out.
        file: ends in .json.
        embeddings: (N, F); cleanlab and Lightly take them, from a file beside `file`.

    Raises:
        UserError: the images are not files (rows of a parquet file), or a file cannot be written.
    """
    places = np.array([p for p in places if np.isfinite(scores.uncertainty[p])], dtype=np.int64)
    if not len(places):
        raise UserError(f"--to {form}: no image has a score")
    return _WRITERS[form](scores, places, file, embeddings)


def _fiftyone(scores: Scores, places: np.ndarray, file: Path, embeddings: np.ndarray | None) -> Exported:
    """The JSON of a whole data set that `fiftyone.Dataset.from_json` reads.

    That is what `SampleCollection.write_json` writes: name, media_type, sample_fields (each the text of its field
    class), info and samples (https://docs.voxel51.com/api/fiftyone.core.dataset.Dataset.html#from_json).
    """
    kind = "fiftyone.core.fields"
    numbers = ("kappa", "uncertainty", "percentile")
    columns = _columns(scores, places)
    samples = []
    for i, path in enumerate(_file_paths(scores, places, "fiftyone")):
        size = {"_cls": "ImageMetadata", "width": columns["width"][i], "height": columns["height"][i]}
        sample = {"filepath": path, "tags": [], "metadata": size}
        samples.append({**sample, **{n: columns[n][i] for n in numbers}, "scored_by": scores.model})
    data = {
        "name": file.stem,
        "media_type": "image",
        "sample_fields": {**dict.fromkeys(numbers, f"{kind}.FloatField"), "scored_by": f"{kind}.StringField"},
        "info": {"model": scores.model, "model_hash": scores.model_hash},
        "samples": samples,
    }
    _write_json(file, data)
    return Exported([file], f'fiftyone.Dataset.from_json("{file}")')


def _cleanlab(scores: Scores, places: np.ndarray, file: Path, embeddings: np.ndarray | None) -> Exported:
    """A data set that `cleanlab.Datalab(data=FILE)` loads, and the features that its `find_issues` takes.

    Datalab loads a .json by `datasets.Dataset.from_json`, here one object a line, not a .csv, whose cells would have to
    be neutralised (https://docs.cleanlab.ai/stable/cleanlab/datalab/datalab.html). `features` is a matrix (M, F) with
    the same rows. As all of cleanlab's scores, `certainty_score` lies in [0, 1] and is low where a look is needed.
    """
    columns = {"image": _file_paths(scores, places, "cleanlab"), **_columns(scores, places)}
    columns["certainty_score"] = [1 - u for u in columns["uncertainty"]]
    lines = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_atomically(file, lambda path: path.write_bytes(text.encode()))
    hint = f'lab = cleanlab.Datalab(data="{file}")'
    if embeddings is None:
        return Exported([file], f"{hint}; its find_issues wants features: give --embeddings too")
    features = file.with_name(f"{file.stem}.features.npy")

    def save(path: Path) -> None:
        with open(path, "wb") as target:
            np.save(target, embeddings[places].astype(np.float32), allow_pickle=False)

    write_atomically(features, save)
    return Exported([file, features], f'{hint}; lab.find_issues(features=numpy.load("{features}"))')


def _label_studio(scores: Scores, places: np.ndarray, file: Path, embeddings: np.ndarray | None) -> Exported:
    """A list of tasks in Label Studio's JSON, each with an empty prediction whose score its Data Manager sorts by.

    A task has `data` with the image, `predictions` of `model_version`, `score` and `result`, and `meta`
    (https://labelstud.io/guide/tasks, /guide/predictions). Files on this machine are named
    /data/local-files/?d=PATH with PATH relative to LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, which must lie above the
    folder that is added as local storage (https://labelstud.io/guide/storage#Local-storage).
    """
    paths = _file_paths(scores, places, "label-studio")
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    root = os.path.dirname(common)
    columns = _columns(scores, places)
    tasks = []
    for i, path in enumerate(paths):
        meta = {n: columns[n][i] for n in ("kappa", "uncertainty", "percentile", "width", "height")}
        url = "/data/local-files/?d=" + quote(os.path.relpath(path, root))
        prediction = {"model_version": scores.model, "score": 1 - columns["uncertainty"][i], "result": []}
        tasks.append({"data": {"image": url, **meta}, "meta": meta, "predictions": [prediction]})
    _write_json(file, tasks)
    hint = (
        f"set LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}, add "
        f"{common} as local storage, import {file}"
    )
    return Exported([file], hint)


def _lightly(scores: Scores, places: np.ndarray, file: Path, embeddings: np.ndarray | None) -> Exported:
    """Lightly's custom metadata: `images` of id and file_name, `metadata` of image_id and the values.

    That is what `lightly.utils.io.format_custom_metadata` makes; names are relative to the folder of the images. The
    embeddings go beside it as Lightly's CSV: filenames, embedding_0 …, labels (`lightly.utils.io.save_embeddings`).
    """
    paths = _file_paths(scores, places, "lightly")
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, common) for path in paths]
    columns = _columns(scores, places)
    values = ("kappa", "uncertainty", "percentile")
    data = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "metadata": [{"image_id": i, **{n: columns[n][i] for n in values}} for i in range(len(names))],
    }
    _write_json(file, data)
    hint = f"{file} is custom metadata of the images in {common}"
    if embeddings is None:
        return Exported([file], hint)
    if any("," in name or "\n" in name or "\r" in name or '"' in name for name in names):
        return Exported([file], f"{hint}; no embeddings, since a name holds a comma, a quote or a line break")
    table = file.with_name(f"{file.stem}.embeddings.csv")
    chosen = embeddings[places].astype(np.float64)

    def save(path: Path) -> None:
        with open(path, "w", encoding="utf-8", newline="") as target:
            header = [f"embedding_{i}" for i in range(chosen.shape[1])]
            target.write(",".join(["filenames", *header, "labels"]) + "\n")
            for name, row in zip(names, chosen, strict=True):
                target.write(",".join([name, *(f"{v:.9g}" for v in row), "0"]) + "\n")

    write_atomically(table, save)
    return Exported([file, table], hint)


def _columns(scores: Scores, places: np.ndarray) -> dict[str, list[Any]]:
    columns = scores.columns(places)
    return {n: columns[n] for n in ("path", "kappa", "uncertainty", "percentile", "width", "height")}


def check_files(form: str, paths: Iterable[str]) -> None:
    """Refuse images that `export_scores` would refuse, before hours are spent on their scores.

    Raises:
        UserError: a path is no file: a row of a parquet file or of a data set.
    """
    for path in paths:
        if not Path(path).is_file():
            raise UserError(_no_file(form, path))


def _no_file(form: str, path: str) -> str:
    return f"--to {form}: {path} is no file here, and {form} reads files alone"


def _file_paths(scores: Scores, places: np.ndarray, form: str) -> list[str]:
    """Absolute paths: other tools read files, not rows of a parquet file."""
    found = []
    for place in places:
        path = scores.paths[place]
        where = next((p for p in (Path(path), Path(scores.folder, path)) if p.is_file()), None)
        if where is None:
            raise UserError(_no_file(form, path))
        found.append(os.path.abspath(where))
    return found


def _write_json(file: Path, data: Any) -> None:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    write_atomically(file, lambda path: path.write_bytes(text.encode()))


_WRITERS = {
    "fiftyone": _fiftyone,
    "cleanlab": _cleanlab,
    "label-studio": _label_studio,
    "lightly": _lightly,
}
