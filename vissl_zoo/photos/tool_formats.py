"""Scores in the formats that other tools import. Images without a score are left out: these have no place for one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import quote

import numpy as np
import pandas as pd

from vissl_zoo.errors import UserError
from vissl_zoo.output import write_text, write_whole
from vissl_zoo.photos.score_table import cells, ordering

Format = Literal["fiftyone", "cleanlab", "label-studio", "lightly"]
FORMATS: tuple[Format, ...] = get_args(Format)
_NUMBERS = ["kappa", "uncertainty", "percentile"]  # and set_uncertainty, where the whole set was asked
_SIZES = ["width", "height"]


class Exported(NamedTuple):
    """What was written: the files, and one line on how the tool reads them."""

    files: list[Path]
    hint: str


def export_scores(
    form: Format, file: Path, table: pd.DataFrame, places: np.ndarray, embeddings: np.ndarray | None = None
) -> Exported:
    """Write the images at `places` for another tool.

    Args:
        form: one of `FORMATS`.
        file: ends in .json.
        table: the scores of N images.
        places: (M,) which of them, in which order; those without a score are left out.
        embeddings: (N, F); cleanlab and Lightly take them, from a file beside `file`.

    Raises:
        UserError: the images are not files (rows of a parquet file), or a file cannot be written.
    """
    places = places[np.isfinite(ordering(table).to_numpy()[places])]
    if not len(places):
        raise UserError(f"--to {form}: no image has a score")
    rows = cells(table.iloc[places])
    paths = [_file_path(path, table.attrs["folder"], form) for path in rows["path"]]
    writers = {
        "fiftyone": _fiftyone,
        "cleanlab": _cleanlab,
        "label-studio": _label_studio,
        "lightly": _lightly,
    }
    return writers[form](rows, paths, file, None if embeddings is None else embeddings[places])


def check_files(form: Format, paths: Iterable[str]) -> None:
    """Refuse images that `export_scores` would refuse, before hours are spent on their scores.

    Raises:
        UserError: a path is no file: a row of a parquet file or of a data set.
    """
    for path in paths:
        _file_path(path, ".", form)


def _fiftyone(rows: pd.DataFrame, paths: list[str], file: Path, embeddings: np.ndarray | None) -> Exported:
    """The JSON of a whole data set that `fiftyone.Dataset.from_json` reads.

    That is what `SampleCollection.write_json` writes: name, media_type, sample_fields (each the text of its field
    class), info and samples (https://docs.voxel51.com/api/fiftyone.core.dataset.Dataset.html#from_json).
    """
    names = _numbers(rows)
    samples = [
        {"filepath": path, "tags": [], "metadata": {"_cls": "ImageMetadata", **size}, **numbers, "scored_by": model}
        for path, size, numbers, model in zip(
            paths, _records(rows, _SIZES), _records(rows, names), rows["model"], strict=True
        )
    ]  # fmt: skip
    kind = "fiftyone.core.fields"
    _write_json(
        file,
        {
            "name": file.stem,
            "media_type": "image",
            "sample_fields": {**dict.fromkeys(names, f"{kind}.FloatField"), "scored_by": f"{kind}.StringField"},
            "info": _records(rows, ["model", "model_hash"])[0],
            "samples": samples,
        },
    )  # fmt: skip
    return Exported([file], f'fiftyone.Dataset.from_json("{file}")')


def _cleanlab(rows: pd.DataFrame, paths: list[str], file: Path, embeddings: np.ndarray | None) -> Exported:
    """A data set that `cleanlab.Datalab(data=FILE)` loads, and the features that its `find_issues` takes.

    Datalab loads a .json by `datasets.Dataset.from_json`, here one object a line, not a .csv, whose cells would have to
    be neutralised (https://docs.cleanlab.ai/stable/cleanlab/datalab/datalab.html). `features` is a matrix (M, F) with
    the same rows. As all of cleanlab's scores, `certainty_score` lies in [0, 1] and is low where a look is needed.
    """
    lines = _records(rows, ["path", *_numbers(rows), *_SIZES])
    lines = [
        {"image": p, **n, "certainty_score": 1 - u}
        for p, n, u in zip(paths, lines, ordering(rows), strict=True)
    ]
    write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    hint = f'lab = cleanlab.Datalab(data="{file}")'
    if embeddings is None:
        return Exported([file], f"{hint}; its find_issues wants features: give --embeddings too")
    features = file.with_name(f"{file.stem}.features.npy")
    write_whole(features, lambda path: np.save(path, embeddings.astype(np.float32), allow_pickle=False))
    return Exported([file, features], f'{hint}; lab.find_issues(features=numpy.load("{features}"))')


def _label_studio(
    rows: pd.DataFrame, paths: list[str], file: Path, embeddings: np.ndarray | None
) -> Exported:
    """A list of tasks in Label Studio's JSON, each with an empty prediction whose score its Data Manager sorts by.

    A task has `data` with the image, `predictions` of `model_version`, `score` and `result`, and `meta`
    (https://labelstud.io/guide/tasks, /guide/predictions). Files on this machine are named
    /data/local-files/?d=PATH with PATH relative to LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, which must lie above the
    folder that is added as local storage (https://labelstud.io/guide/storage#Local-storage).
    """
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    root = os.path.dirname(common)
    tasks = []
    known = _records(rows, [*_numbers(rows), *_SIZES])
    for path, meta, model, told in zip(paths, known, rows["model"], ordering(rows), strict=True):
        url = "/data/local-files/?d=" + quote(os.path.relpath(path, root))
        prediction = {"model_version": model, "score": 1 - told, "result": []}
        tasks.append({"data": {"image": url, **meta}, "meta": meta, "predictions": [prediction]})
    _write_json(file, tasks)
    hint = (
        f"set LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}, add "
        f"{common} as local storage, import {file}"
    )
    return Exported([file], hint)


def _lightly(rows: pd.DataFrame, paths: list[str], file: Path, embeddings: np.ndarray | None) -> Exported:
    """Lightly's custom metadata: `images` of id and file_name, `metadata` of image_id and the values.

    That is what `lightly.utils.io.format_custom_metadata` makes; names are relative to the folder of the images. The
    embeddings go beside it as Lightly's CSV: filenames, embedding_0 …, labels (`lightly.utils.io.save_embeddings`).
    """
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, common) for path in paths]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    numbers = [{"image_id": i, **values} for i, values in enumerate(_records(rows, _numbers(rows)))]
    _write_json(file, {"images": images, "metadata": numbers})
    hint = f"{file} is custom metadata of the images in {common}"
    if embeddings is None:
        return Exported([file], hint)
    if any(mark in name for name in names for mark in ',"\n\r'):
        return Exported([file], f"{hint}; no embeddings, since a name holds a comma, a quote or a line break")
    beside = file.with_name(f"{file.stem}.embeddings.csv")
    lines = [",".join(["filenames", *(f"embedding_{i}" for i in range(embeddings.shape[1])), "labels"])]
    for name, row in zip(names, embeddings.tolist(), strict=True):
        lines.append(",".join([name, *(f"{v:.9g}" for v in row), "0"]))
    write_text(beside, "\n".join(lines) + "\n")
    return Exported([file, beside], hint)


def _numbers(rows: pd.DataFrame) -> list[str]:
    return [*_NUMBERS, *({"set_uncertainty"} & {*rows})]


def _records(rows: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in rows[columns].itertuples(index=False, name=None)]


def _file_path(path: str, folder: str, form: Format) -> str:
    """An absolute path: other tools read files, not rows of a parquet file."""
    where = next((p for p in (Path(path), Path(folder, path)) if p.is_file()), None)
    if where is None:
        raise UserError(f"--to {form}: {path} is no file here, and {form} reads files alone")
    return os.path.abspath(where)


def _write_json(file: Path, data: Any) -> None:
    write_text(file, json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
