"""What is scored so far, on disk in parts, so that a run that was cut off at any moment goes on where it stood.

A folder beside the output holds `settings.json` and parts, each a parquet file that is written under another name and
then renamed: a part is whole or it is not there.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vissl_zoo.errors import UserError

SETTINGS = "settings.json"


class Row(NamedTuple):
    """One image's score: as the columns of the output, `embedding` (F,) float32 or None if it was not asked for."""

    path: str
    stamp: int
    kappa: float
    uncertainty: float
    height: int
    width: int
    embedding: np.ndarray | None


class Journal:
    """The unfinished work for one output file. Only images that could be scored are in it: others are tried again."""

    def __init__(self, output: Path, settings: Mapping[str, Any]):
        """Open the journal of `output`, dropping what was scored under other `settings` (JSON).

        Attributes set: `dropped`, whether there was such work.

        Raises:
            UserError: the folder cannot be written.
        """
        self.folder = output.with_name(f"{output.name}.partial")
        self._settings = dict(settings)
        self._pending: list[Row] = []
        try:
            found = json.loads((self.folder / SETTINGS).read_text())
        except (OSError, ValueError):
            found = None
        parts = list(self.folder.glob("*.part"))
        self.dropped = bool(parts) and found != self._settings
        try:
            if found != self._settings:
                self._clear()
                self.folder.mkdir(exist_ok=True)
                unfinished = self.folder / f".{uuid.uuid4().hex}.tmp"
                unfinished.write_text(json.dumps(self._settings))
                os.replace(unfinished, self.folder / SETTINGS)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    def read(self) -> Iterator[Row]:
        """All rows of the parts, in no particular order. A part that is damaged is passed over."""
        for part in sorted(self.folder.glob("*.part")):
            try:
                table = pq.read_table(part)
            except (OSError, pa.ArrowException):
                continue
            lists = [table[name].to_pylist() for name in Row._fields[:-1]]
            embeddings = [None] * len(table)
            if "embedding" in table.column_names:
                column = table["embedding"].combine_chunks()
                embeddings = column.flatten().to_numpy().reshape(len(table), -1)
            for values in zip(*lists, embeddings, strict=True):
                yield Row(*values)

    def add(self, row: Row) -> None:
        """Remember a row; it is on disk after the next `flush`."""
        self._pending.append(row)

    def flush(self) -> None:
        """Write what was added as one part.

        Raises:
            UserError: it cannot be written.
        """
        if not self._pending:
            return
        columns = dict(zip(Row._fields, zip(*self._pending, strict=True), strict=True))
        embeddings = columns.pop("embedding")
        arrays = {name: pa.array(values) for name, values in columns.items()}
        if embeddings[0] is not None:
            flat = pa.array(np.concatenate(embeddings).astype(np.float32))
            arrays["embedding"] = pa.FixedSizeListArray.from_arrays(flat, len(embeddings[0]))
        name = uuid.uuid4().hex
        try:
            pq.write_table(pa.table(arrays), self.folder / f".{name}.tmp")
            os.replace(self.folder / f".{name}.tmp", self.folder / f"{name}.part")
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error
        self._pending.clear()

    def remove(self) -> None:
        """Delete the journal: its output is written. Files of others in the folder stay."""
        self._clear()
        (self.folder / SETTINGS).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _clear(self) -> None:
        for file in [*self.folder.glob("*.part"), *self.folder.glob(".*.tmp")]:
            file.unlink(missing_ok=True)
