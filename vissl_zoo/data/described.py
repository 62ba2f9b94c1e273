"""What metadata files say of the images beside and below them, joined by the names of the files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from vissl_zoo.data.decode import why_unreadable
from vissl_zoo.data.files import LocalFiles, as_text, say_once
from vissl_zoo.errors import UserError

_NAME = "file_name"  # Hugging Face's name of the column


def describe_images(path: str, images: datasets.Dataset, files: LocalFiles, split: str) -> datasets.Dataset:
    """The `images` of a split, all of them, with the columns of the metadata files; null where these say nothing.

    `datasets`' own imagefolder drops the images that no row names, and there may be 19 of 20. One warning counts them,
    and the rows that name no image.

    Raises:
        UserError: two metadata files disagree about the type of a column.
    """
    tables, where = [], {}
    count = unnamed = 0
    for file, table in _readable(files.metadata):
        names = table.column(_NAME).cast(pa.string()).to_pylist()
        for row, name in enumerate(names, count):
            place = None if name is None else os.path.normpath(os.path.join(as_text(file.parent), name))
            unnamed += place is None or place in where
            where.setdefault(place, row)
        count += len(names)
        described = datasets.Dataset(table)
        tables.append(described.remove_columns([c for c in (_NAME, "image") if c in described.column_names]))
    everywhere = [as_text(f) for group in (*files.splits.values(), files.outside) for f in group]
    named = sum(f in where for f in everywhere)
    lost = count - named
    if tables and (lost or named < len(everywhere)):
        said = f"metadata files say nothing of {len(everywhere) - named:,} of {len(everywhere):,} images"
        say_once(
            f"{path}: {said}, and {lost:,} of their {count:,} rows are of no image here or repeat another"
        )
    tables = [table for table in tables if table.column_names]
    if not tables or not named:
        return images
    try:
        joined = datasets.concatenate_datasets(tables)
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: its metadata files do not go together ({why_unreadable(error)})") from error
    rows = pa.array([where.get(as_text(f)) for f in files.splits[split]], pa.int64())
    columns = cast(pa.Table, joined.with_format("arrow")[:]).take(rows)
    known = cast(pa.Table, images.with_format("arrow")[:])
    features: Any = {**images.features, **joined.features}
    for name in joined.column_names:
        if name in known.column_names:
            known = known.drop_columns([name])
        known = known.append_column(name, columns.column(name))
    order = datasets.Features({name: features[name] for name in known.column_names})
    known = known.replace_schema_metadata(None).cast(order.arrow_schema)
    return datasets.Dataset(known, info=datasets.DatasetInfo(features=order))


def _readable(files: tuple[Path, ...]) -> Iterator[tuple[Path, pa.Table]]:
    for file in files:
        try:
            table = _read(file)
        except (OSError, ValueError, pa.ArrowException) as error:
            say_once(f"{file}: left out, since it cannot be read ({why_unreadable(error)})")
            continue
        if _NAME not in table.column_names:
            say_once(f"{file}: left out, since it has no column {_NAME}")
        else:
            yield file, table


def _read(file: Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pq.read_table(file)
    with file.open("rb") as opened:
        if file.suffix == ".jsonl":
            return pyarrow.json.read_json(opened)
        header = opened.readline().decode("utf-8-sig", "replace")
        opened.seek(0)
        delimiter = next((d for d in ",;\t" if _NAME in map(_bare, header.split(d))), ",")
        parsing = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        converting = pyarrow.csv.ConvertOptions(strings_can_be_null=True, column_types={_NAME: pa.string()})
        return pyarrow.csv.read_csv(opened, parse_options=parsing, convert_options=converting)


def _bare(cell: str) -> str:
    return cell.strip().strip('"')
