"""Tables of scores: a DataFrame with one row an image, and the files that hold it, .parquet, .csv or .jsonl.

`COLUMNS` are those of `score`, which adds `set_uncertainty` where it asked the whole set. A subset adds `row`, an
image's row in the embeddings of the whole set. `dedup` adds `group`, `kept` and `cosine`, and with another set
`reference` and `reference_cosine`. Columns of others are carried along. `table.attrs` holds "folder", against which
relative paths are meant, and "images", how many the whole set has.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vissl_zoo.errors import UserError, first_line
from vissl_zoo.output import write_text, write_whole

QUALITY = ("brightness", "contrast", "sharpness")
COLUMNS = ("path", "kappa", "uncertainty", "percentile", "width", "height", *QUALITY, "issue", "content_hash")
COLUMNS += ("error", "model", "model_hash")
TABLES = (".parquet", ".csv", ".jsonl")
LISTS = (*TABLES, ".txt")
_TEXTS = ("path", "issue", "content_hash", "error", "model", "model_hash")
_NUMBERS = {
    **dict.fromkeys(("kappa", "uncertainty", "set_uncertainty", *QUALITY), "float32"),
    **dict.fromkeys(("percentile", "cosine", "reference_cosine"), "float64"),
    **dict.fromkeys(("width", "height", "row", "group"), "Int64"),
}
_KEY = b"vissl_zoo"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def certain_first(table: pd.DataFrame) -> np.ndarray:
    """Places (M,) of the images that have a score, the most certain first; κ decides between equals."""
    uncertainty, kappa = ordering(table).to_numpy(), table["kappa"].to_numpy()
    good = np.flatnonzero(np.isfinite(uncertainty))
    return good[np.lexsort((-kappa[good], uncertainty[good]))]


def ordering(table: pd.DataFrame) -> pd.Series:
    """What images are ordered by: what the whole set says of them where it was asked, else the uncertainty."""
    return table["set_uncertainty"] if "set_uncertainty" in table else table["uncertainty"]


def candidates(table: pd.DataFrame, name: str) -> np.ndarray:
    """As `certain_first`, but for the images that `dedup` found to repeat another.

    Raises:
        UserError: there is none, in the table called `name`.
    """
    order = certain_first(table)
    if "kept" in table:
        order = order[table["kept"].to_numpy()[order]]
    if not len(order):
        raise UserError(f"{name}: no image has a score")
    return order


def largest_first(table: pd.DataFrame, order: np.ndarray) -> np.ndarray:
    """Places (M,) with the largest picture first; equally large ones keep their order, and unknown sizes come last."""
    area = (table["width"] * table["height"]).astype("float64").fillna(0).to_numpy()
    return order[np.argsort(-area[order], kind="stable")]


def percentile(uncertainty: pd.Series) -> pd.Series:
    """The rank of each of N uncertainties, 0 for the most certain image … 100 for the least; NaN where there is none.

    Equal uncertainties share the mean of their ranks; a single image is at 0.
    """
    return 100 * (uncertainty.rank() - 1) / max(1, uncertainty.count() - 1)


def embedding_rows(table: pd.DataFrame) -> np.ndarray:
    """Which row of the embeddings of the whole set belongs to each image, (N,) int64."""
    return table["row"].to_numpy(np.int64) if "row" in table else np.arange(len(table))


def subset(table: pd.DataFrame, places: np.ndarray) -> pd.DataFrame:
    """The images at `places` (M,), in that order, with their `row`, and without what `dedup` said of the whole set."""
    chosen = table.assign(row=embedding_rows(table)).iloc[places]
    return chosen.drop(columns=["group", "kept", "cosine", "reference", "reference_cosine"], errors="ignore")


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """The table in Python's own values, None for what is not known; a float32 with the fewest digits that tell it."""
    short = {n: [float(str(v)) for v in table[n].to_numpy()] for n in table if table[n].dtype == np.float32}
    return table.assign(**short).astype(object).where(table.notna(), None)


def write_scores(file: Path, table: pd.DataFrame, memory: Mapping[str, Any] | None = None) -> None:
    """Write a table by the suffix of `file`; .txt takes the paths alone, one a line.

    In a .csv, text that a spreadsheet would take for a formula (it starts with = + - @, a tab or a line break) gets an
    apostrophe before it, and so does text that starts with one: `read_scores` takes exactly one away.

    Args:
        file: ends in .parquet, .csv, .jsonl or .txt.
        table: the scores.
        memory: JSON to keep in the file, which only .parquet can; by default "folder" and "images".

    Raises:
        UserError: it cannot be written, or a path with a line break is asked for in a .txt.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        arrays = {name: _arrow(table, name) for name in table}
        if memory is None:
            memory = {name: table.attrs[name] for name in ("folder", "images") if table.attrs.get(name)}
        columns = pa.table(arrays).replace_schema_metadata({_KEY: json.dumps(dict(memory))})
        write_whole(file, lambda path: pq.write_table(columns, path))
        return
    if suffix == ".txt":
        broken = next((p for p in table["path"] if "\n" in p or "\r" in p), None)
        if broken is not None:
            raise UserError(f"{file}: the path {broken!r} has a line break; write .parquet, .csv or .jsonl")
        text = "".join(f"{path}\n" for path in table["path"])
    elif suffix == ".jsonl":
        rows = cells(table).to_dict("records")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        said = io.StringIO()
        writer = csv.writer(said)  # ends lines as RFC 4180 does; with "\n" alone it would not quote a "\r"
        writer.writerow(table.columns)
        writer.writerows([neutralised(cell) for cell in row] for row in cells(table).to_numpy().tolist())
        text = said.getvalue()
    write_text(file, text)


def neutralised(cell: Any) -> Any:
    """A cell of a CSV that no spreadsheet evaluates, see `write_scores`."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def read_scores(name: str) -> pd.DataFrame:
    """Read a table that `score`, `filter`, `select` or `dedup` wrote; what a .parquet remembers is in its `attrs`.

    A folder stands for the tables of all shards in it, see `score --shard`; percentiles are those of the whole then.

    Raises:
        UserError: it is absent, cannot be read, or lacks a column; or shards are missing or are no parts of one set.
    """
    file = Path(os.path.expanduser(name))
    if file.is_dir():
        return _read_shards(name, file)
    if not file.is_file():
        raise UserError(f"{name}: no such file; `vissl-zoo score` makes it")
    try:
        table, memory = _read(file)
        missing = [column for column in ("path", "kappa", "uncertainty") if column not in table]
        if missing:
            raise UserError(f"{name} has no column {missing[0]!r}; `vissl-zoo score` makes such a table")
        if not len(table):
            raise UserError(f"{name} holds no image")
        table = _typed(table)
    except (
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
        TypeError,
        csv.Error,
        pa.ArrowException,
    ) as error:
        raise UserError(f"{name} cannot be read: {first_line(error)}") from error
    table.attrs = {"folder": ".", "images": None if "row" in table else len(table), **memory}
    return table


def _read_shards(name: str, folder: Path) -> pd.DataFrame:
    files = sorted(folder.glob("[!.]*.parquet"))  # one with a dot is being written, or was
    if not files:
        raise UserError(f"{name} is a folder without the tables of `vissl-zoo score --shard`")
    tables = [read_scores(os.fspath(file)) for file in files]
    shards = [tuple(table.attrs.get("shard", ())) for table in tables]
    for file, shard in zip(files, shards, strict=True):
        if len(shard) != 2 or shard[1] != shards[0][1]:
            raise UserError(
                f"{file} is no shard of those beside it; `vissl-zoo score --shard` makes such tables"
            )
    if missing := sorted(set(range(1, shards[0][1] + 1)) - {number for number, _ in shards}):
        raise UserError(f"{name} lacks the shards {', '.join(map(str, missing[:8]))} of {shards[0][1]}")
    order = sorted(range(len(files)), key=shards.__getitem__)
    files, tables = [files[i] for i in order], [tables[i] for i in order]
    whole = pd.concat(tables, ignore_index=True)
    if (twice := whole["path"].duplicated().to_numpy()).any():
        raise UserError(f"{name}: {whole['path'].to_numpy()[twice][0]} is in two shards")
    if whole["model_hash"].nunique() > 1:
        raise UserError(f"{name}: its shards were scored by different models")
    whole["percentile"] = percentile(ordering(whole))
    names = [file.stem for file in files]
    whole.attrs = {"folder": tables[0].attrs["folder"], "images": len(whole), "shards": names}
    return whole


def read_embeddings(
    name: str | None, table: pd.DataFrame, command: str, flag: str = "--embeddings"
) -> np.ndarray:
    """The embeddings (N, F) float32 that belong to the N images of `table`, NaN where one failed.

    A folder stands for those of the shards that `table` was read from: each has the name of its table.

    Raises:
        UserError: none are given, they cannot be read, or they are not of these images.
    """
    if name is None:
        raise UserError(f"{command} needs {flag} E.npy, which `vissl-zoo score --embeddings E.npy` makes")
    try:
        file, shards = Path(os.path.expanduser(name)), table.attrs.get("shards")
        if shards and file.is_dir():
            parts = [np.load(file / f"{shard}.npy", mmap_mode="r", allow_pickle=False) for shard in shards]
            embeddings = np.concatenate(parts)
        else:
            embeddings = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"{flag} {getattr(error, 'filename', None) or name} cannot be read: {reason}"
        ) from error
    if not isinstance(embeddings, np.ndarray):
        raise UserError(f"{flag} {name}: an .npz, not the one array of an .npy")
    if embeddings.ndim != 2 or not embeddings.shape[1] or embeddings.dtype.kind != "f":
        raise UserError(f"{flag} {name}: not a table of numbers (N, F) but {embeddings.shape}")
    rows = embedding_rows(table)
    whole = table.attrs.get("images")  # a subset in a .csv does not know of how many it is one
    if rows.min() < 0 or rows.max() >= len(embeddings) or whole not in (None, len(embeddings)):
        raise UserError(
            f"{flag} {name} has {len(embeddings)} rows, and the scores are of {whole or rows.max() + 1} images: "
            "take the two that one call of `score` wrote, and make again what followed from them"
        )
    taken = np.asarray(embeddings[rows], dtype=np.float32)
    bad = np.isfinite(table["uncertainty"].to_numpy()) & ~np.isfinite(taken).all(axis=1)
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        raise UserError(f"{flag} {name}: row {rows[place]}, {table['path'][place]}, is not finite")
    return taken


def _read(file: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The columns of a file as they stand in it, and what it remembers."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        text = _spreadsheet_text(file.read_bytes())
        first = text.partition("\n")[0]
        # Where a comma is the decimal mark, a spreadsheet parts cells by semicolons.
        delimiter = next((d for d in ",;\t" if "path" in next(csv.reader([first], delimiter=d), [])), ",")
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [[c[1:] if c.startswith("'") else c for c in row] for row in rows if row]
        table = pd.DataFrame(rows, columns=header, dtype=object).replace("", None)
        if delimiter != ",":
            numbers = {n: table[n].str.replace(",", ".", regex=False) for n in _NUMBERS if n in table}
            table = table.assign(**numbers)
        return table, {}
    if suffix == ".jsonl":
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        return pd.DataFrame.from_records(lines).astype(object), {}
    if suffix != ".parquet":
        raise ValueError("scores are .parquet, .csv or .jsonl")
    columns = pq.read_table(file)
    memory = json.loads((columns.schema.metadata or {}).get(_KEY, b"{}"))
    if not isinstance(memory, dict) or not isinstance(memory.get("folder", "."), str):
        raise ValueError("what it remembers was not written by `vissl-zoo score`")
    return columns.to_pandas(), memory


def _spreadsheet_text(data: bytes) -> str:
    """The text of a .csv, with or without the mark that spreadsheets write before it."""
    return data.decode(
        "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with all of `COLUMNS`, its numbers as numbers, and half a score made none."""
    bad = next((i for i, path in enumerate(table["path"]) if not isinstance(path, str) or not path), None)
    if bad is not None:
        raise ValueError(f"the path of row {bad} is not text but {table['path'][bad]!r}")
    ranked = "percentile" in table
    table = table.assign(**{name: None for name in COLUMNS if name not in table})
    for name, dtype in _NUMBERS.items():
        if name in table:
            table[name] = pd.Series(pd.to_numeric(table[name])).astype(dtype)
    if "kept" in table:
        said = table["kept"].map(lambda cell: str(cell).strip().lower())
        table["kept"] = ~said.isin(["false", "0", "0.0"])
    whole = np.isfinite(table["kappa"]) & np.isfinite(table["uncertainty"])
    table.loc[~whole, ["kappa", "uncertainty"]] = np.nan
    if "set_uncertainty" in table:
        table.loc[~whole, "set_uncertainty"] = np.nan
    return table if ranked else table.assign(percentile=percentile(ordering(table)))


def _arrow(table: pd.DataFrame, name: str) -> pa.Array:
    return pa.array(table[name], pa.string() if name in _TEXTS else None, from_pandas=True)
