"""Tables of scores on disk, in the format that the file's suffix names: .parquet, .csv or .jsonl."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vissl_zoo.errors import UserError

COLUMNS = ("path", "kappa", "uncertainty", "percentile", "width", "height", "error", "model", "model_hash")
_TYPES = {
    **dict.fromkeys(("path", "error", "model", "model_hash"), pa.string()),
    **dict.fromkeys(("kappa", "uncertainty"), pa.float32()),
    **dict.fromkeys(("percentile", "cosine"), pa.float64()),
    **dict.fromkeys(("width", "height", "row", "group"), pa.int64()),
    "kept": pa.bool_(),
}
_KEY = b"vissl_zoo"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


@dataclass
class Scores:
    """The scores of N images.

    Attributes:
        paths: (N,) by which `read_image` opens each.
        kappa, uncertainty: (N,) float32, NaN where it failed.
        width, height: (N,) int64 of the original in pixels, 0 where unknown.
        errors: (N,) one line each, None where all is well.
        rows: (N,) int64, which row of the embeddings belongs to each.
        kept: (N,) bool, False for an image that `dedup` found to repeat another.
        model, model_hash: what scored them.
        folder: against which relative paths are meant.
        extra: what else the file remembers, see `score_inputs`.
        known_percentile: (N,) float64 of a subset, whose ranks are those within the whole set; None for a whole set.
    """

    paths: list[str]
    kappa: np.ndarray
    uncertainty: np.ndarray
    width: np.ndarray
    height: np.ndarray
    errors: list[str | None]
    rows: np.ndarray
    kept: np.ndarray
    model: str
    model_hash: str
    folder: str = "."
    extra: dict[str, Any] = field(default_factory=dict)
    known_percentile: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def good(self) -> np.ndarray:
        """Places (M,) of the images that have a score."""
        return np.flatnonzero(np.isfinite(self.uncertainty))

    @property
    def order(self) -> np.ndarray:
        """Places (M,) of the images that have a score, the most certain first; κ decides between equals."""
        good = self.good
        return good[np.lexsort((-self.kappa[good], self.uncertainty[good]))]

    @property
    def percentile(self) -> np.ndarray:
        """(N,) float64: the rank of the uncertainty, 0 for the most certain image … 100 for the least; NaN if none.

        Equal uncertainties share the mean of their ranks; a single image is at 0.
        """
        if self.known_percentile is not None:
            return self.known_percentile
        percentile = np.full(len(self), np.nan)
        good = self.good
        percentile[good] = 100 * mean_ranks(self.uncertainty[good]) / max(1, len(good) - 1)
        return percentile

    def write(self, file: Path, places: np.ndarray) -> None:
        """Write the images at `places`, in that order, with their `row` in the embeddings, by the suffix of `file`.

        Raises:
            UserError: as `write_columns`.
        """
        memory = {name: self.extra[name] for name in ("folder", "images") if self.extra.get(name) is not None}
        write_columns(file, {**self.columns(places), "row": self.rows[places].tolist()}, memory)

    def columns(self, places: np.ndarray | None = None) -> dict[str, list]:
        """`COLUMNS` of the images at `places` (default: all) as lists, None for what is not known."""
        places = np.arange(len(self)) if places is None else places
        known = (self.width > 0) & (self.height > 0)
        sizes = {"width": self.width, "height": self.height}
        values = {
            "path": [self.paths[i] for i in places],
            "kappa": or_none(self.kappa[places]),
            "uncertainty": or_none(self.uncertainty[places]),
            "percentile": or_none(self.percentile[places]),
            **{name: [int(v[i]) if known[i] else None for i in places] for name, v in sizes.items()},
            "error": [self.errors[i] for i in places],
        }
        return {**values, **{n: [getattr(self, n)] * len(places) for n in ("model", "model_hash")}}


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each of (N,), 0 … N - 1; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[which]


def or_none(values: np.ndarray) -> list:
    """A list of Python numbers, None for each that is not finite; of a float32 the fewest digits that tell it apart."""
    numbers = [float(str(v)) for v in values] if values.dtype == np.float32 else values.tolist()
    return [v if ok else None for v, ok in zip(numbers, np.isfinite(values).tolist(), strict=True)]


def check_output(
    path: str | None, flag: str, suffixes: tuple[str, ...], reads: Iterable[str | None] = ()
) -> Path | None:
    """The file to write, before any work is done for it; None if there is none.

    Raises:
        UserError: its suffix is not one of `suffixes`, it is a folder, its folder is absent or cannot be written, or it
            is one of the files that the command `reads`.
    """
    if path is None:
        return None
    file = Path(os.path.expanduser(path))
    if file.suffix.lower() not in suffixes:
        raise UserError(f"{flag} {path}: the name must end in {' or '.join(suffixes)}")
    if file.is_dir():
        raise UserError(f"{flag} {path}: that is a folder")
    if not file.parent.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{flag} {path}: the folder {file.parent} cannot be written")
    where = os.path.realpath(file)
    if any(os.path.realpath(os.path.expanduser(read)) == where for read in reads if read):
        raise UserError(f"{flag} {path}: that file is read, and would be written over")
    return file


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """`write` a file beside `file` and move it there, so that a crash leaves the old one or the new one.

    Raises:
        UserError: it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        write(unfinished)
        os.replace(unfinished, file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_columns(file: Path, columns: Mapping[str, list], memory: Mapping[str, Any] | None = None) -> None:
    """Write columns of equal length by the suffix of `file`; .txt takes the paths alone, one a line.

    In a .csv, text that a spreadsheet would take for a formula (it starts with = + - @, a tab or a line break) gets an
    apostrophe before it, and so does text that starts with one: `read_scores` takes exactly one away.

    Args:
        file: ends in .parquet, .csv, .jsonl or .txt.
        columns: lists of Python values.
        memory: JSON to keep in the file, which only .parquet can.

    Raises:
        UserError: it cannot be written, or a path with a line break is asked for in a .txt.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        schema = pa.schema([(name, _TYPES[name]) for name in columns])
        table = pa.table({n: pa.array(v, _TYPES[n]) for n, v in columns.items()}, schema=schema)
        table = table.replace_schema_metadata({_KEY: json.dumps(dict(memory or {}))})
        write_atomically(file, lambda path: pq.write_table(table, path))
        return
    rows = zip(*columns.values(), strict=True)
    if suffix == ".txt":
        broken = next((p for p in columns["path"] if "\n" in p or "\r" in p), None)
        if broken is not None:
            raise UserError(f"{file}: the path {broken!r} has a line break; write .parquet, .csv or .jsonl")
        text = "".join(f"{path}\n" for path in columns["path"])
    elif suffix == ".jsonl":
        text = "".join(
            json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows
        )
    else:
        said = io.StringIO()
        writer = csv.writer(said)  # ends lines as RFC 4180 does; with "\n" alone it would not quote a "\r"
        writer.writerow(columns)
        writer.writerows([[neutralised(cell) for cell in row] for row in rows])
        text = said.getvalue()
    write_atomically(file, lambda path: path.write_bytes(text.encode()))


def neutralised(cell: Any) -> Any:
    """A cell of a CSV that no spreadsheet evaluates, see `write_columns`."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def read_scores(name: str) -> Scores:
    """Read a table that `score`, `filter`, `select` or `dedup` wrote.

    Raises:
        UserError: it is absent, cannot be read, or lacks a column.
    """
    file = Path(os.path.expanduser(name))
    if not file.is_file():
        raise UserError(f"{name}: no such file; `vissl-zoo score` makes it")
    try:
        columns, memory = _read_columns(file)
    except (OSError, ValueError, LookupError, AttributeError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"{name} cannot be read: {(str(error).splitlines() or ['?'])[0]}") from error
    missing = [c for c in ("path", "kappa", "uncertainty") if c not in columns]
    if missing:
        raise UserError(f"{name} has no column {missing[0]!r}; `vissl-zoo score` makes such a table")
    count = len(columns["path"])
    if not count:
        raise UserError(f"{name} holds no image")
    nameless = next(
        (i for i, path in enumerate(columns["path"]) if not path or not isinstance(path, str)), None
    )
    if nameless is not None:
        raise UserError(f"{name}: the path of row {nameless} is not text but {columns['path'][nameless]!r}")

    def numbers(key: str, dtype: type, otherwise: float) -> np.ndarray:
        values = columns.get(key, [None] * count)
        return np.array([otherwise if v in (None, "") else v for v in values], dtype=dtype)

    def first(key: str) -> str:
        return str(next((v for v in columns.get(key, []) if v), ""))

    try:
        rows = numbers("row", np.int64, 0) if "row" in columns else np.arange(count)
        kappa, uncertainty = (numbers(key, np.float32, np.nan) for key in ("kappa", "uncertainty"))
        uncertainty[~np.isfinite(kappa)] = np.nan  # edited by hand: half a score is none
        return Scores(
            paths=list(columns["path"]),
            kappa=kappa,
            uncertainty=uncertainty,
            width=numbers("width", np.int64, 0),
            height=numbers("height", np.int64, 0),
            errors=[str(v) if v else None for v in columns.get("error", [None] * count)],
            rows=rows,
            kept=np.array([v not in (False, "False", "false") for v in columns.get("kept", [True] * count)]),
            model=first("model"),
            model_hash=first("model_hash"),
            folder=memory.get("folder", "."),
            known_percentile=numbers("percentile", np.float64, np.nan) if "percentile" in columns else None,
            extra={"images": None if "row" in columns else count, **memory},
        )
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{name}: {(str(error).splitlines() or ['?'])[0]}") from error


def _read_columns(file: Path) -> tuple[dict[str, list], dict[str, Any]]:
    suffix = file.suffix.lower()
    if suffix == ".csv":
        with open(
            file, newline="", encoding="utf-8-sig"
        ) as source:  # spreadsheets save a mark before the text
            header, *rows = csv.reader(source)
        rows = [[c[1:] if c.startswith("'") else c for c in row] for row in rows if row]
        return {name: [row[i] for row in rows] for i, name in enumerate(header)}, {}
    if suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        return {name: [line.get(name) for line in lines] for name in (lines[0] if lines else {})}, {}
    if suffix != ".parquet":
        raise ValueError("scores are .parquet, .csv or .jsonl")
    table = pq.read_table(file)
    memory = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    if not isinstance(memory, dict) or not isinstance(memory.get("folder", "."), str):
        raise ValueError("what it remembers was not written by `vissl-zoo score`")
    return {name: table[name].to_pylist() for name in table.column_names}, memory


def read_embeddings(name: str | None, scores: Scores, command: str) -> np.ndarray:
    """The embeddings (N, F) float32 that belong to the N images of `scores`, NaN where one failed.

    Raises:
        UserError: none are given, they cannot be read, or they are not of these images.
    """
    if name is None:
        raise UserError(
            f"{command} needs --embeddings E.npy, which `vissl-zoo score --embeddings E.npy` makes"
        )
    try:
        embeddings = np.load(os.path.expanduser(name), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["?"])[0]
        raise UserError(f"--embeddings {name} cannot be read: {reason}") from error
    if not isinstance(embeddings, np.ndarray):
        raise UserError(f"--embeddings {name}: an .npz, not the one array of an .npy")
    if embeddings.ndim != 2 or not embeddings.shape[1] or embeddings.dtype.kind != "f":
        raise UserError(f"--embeddings {name}: not a table of numbers (N, F) but {embeddings.shape}")
    least, most = scores.rows.min(), scores.rows.max()
    whole = scores.extra.get("images")  # a subset in a .csv does not know of how many it is one
    if least < 0 or most >= len(embeddings) or whole not in (None, len(embeddings)):
        raise UserError(
            f"--embeddings {name} has {len(embeddings)} rows, and the scores are of {whole or most + 1} images: "
            "take the two that one call of `score` wrote, and make again what followed from them"
        )
    taken = np.asarray(embeddings[scores.rows], dtype=np.float32)
    bad = ~np.isfinite(taken[scores.good]).all(axis=1)
    if bad.any():
        place = scores.good[np.flatnonzero(bad)[0]]
        raise UserError(
            f"--embeddings {name}: row {scores.rows[place]}, {scores.paths[place]}, is not finite"
        )
    return taken
