"""What is scored so far, in OUTPUT.partial, an sqlite3 file: a call that was killed is gone on with where it stood."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vissl_zoo.errors import UserError, first_line

COMMIT_SECONDS = 5.0  # what a killed call loses at most, besides the batch at hand
SCHEMA = (
    "CREATE TABLE settings (said TEXT)",
    "CREATE TABLE scores (path TEXT PRIMARY KEY, stamp INTEGER, kappa REAL, uncertainty REAL, "
    "set_uncertainty REAL, brightness REAL, contrast REAL, sharpness REAL, width INTEGER, height INTEGER, "
    "content_hash TEXT, embedding BLOB) WITHOUT ROWID",
)


class Row(NamedTuple):
    """One image: as the columns of the output; `stamp` is another number when it has changed.

    `set_uncertainty` is NaN and `embedding`, (F,) float32, is None where they were not asked for.
    """

    path: str
    stamp: int
    kappa: float
    uncertainty: float
    set_uncertainty: float
    brightness: float
    contrast: float
    sharpness: float
    width: int
    height: int
    content_hash: str
    embedding: np.ndarray | None
    error: str | None = None


class Unfinished:
    """The unfinished work for one output file; leaving the context writes and closes it.

    Attributes:
        file: where it is.
        dropped: whether there was work under other settings, which is gone.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]):
        """Open the work for `output`, or begin it.

        Args:
            output: the file that is to be written in the end.
            settings: JSON; work that was done under others is dropped.

        Raises:
            UserError: something else has that name, or another process is at work on it.
        """
        self.file = output.with_name(f"{output.name}.partial")
        with self._one_line():
            if self.file.is_symlink():  # sqlite would write where it leads
                raise ValueError("it is a link")
            self._database = sqlite3.connect(self.file, timeout=0, isolation_level=None)
            execute = self._database.execute
            execute("BEGIN IMMEDIATE")  # from now on it is locked: one transaction follows the other
            found = tuple(sql for (sql,) in execute("SELECT sql FROM sqlite_master"))
            if found not in ((), SCHEMA):
                raise ValueError("it was not left by `vissl-zoo score`")
            for statement in SCHEMA[len(found) :]:
                execute(statement)
            said = json.dumps(dict(settings), sort_keys=True)
            fits = execute("SELECT said FROM settings").fetchall() == [(said,)]
            self.dropped = not fits and bool(execute("SELECT count(*) FROM scores").fetchone()[0])
            if not fits:
                execute("DELETE FROM scores")
                execute("DELETE FROM settings")
                execute("INSERT INTO settings VALUES (?)", [said])
            self._commit()

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._one_line(), contextlib.closing(self._database):
            self._database.execute("COMMIT")

    def read(self) -> Iterator[Row]:
        """All rows, in no particular order.

        Raises:
            UserError: what is in the file is no score.
        """
        with self._one_line():
            for path, stamp, *said, width, height, hashed, blob in self._database.execute(
                "SELECT * FROM scores"
            ):
                embedding = None if blob is None else np.frombuffer(blob, dtype="<f4")
                scores = (float("nan") if value is None else float(value) for value in said)
                known = str(path), int(stamp), *scores, int(width), int(height), str(hashed), embedding, None
                yield Row._make(known)

    def add(self, rows: Iterable[Row]) -> None:
        """Remember the rows without an error: the others are tried again. After some seconds they are safe on disk.

        Raises:
            UserError: they cannot be written.
        """
        values = [
            (*row[:-2], None if row.embedding is None else row.embedding.astype("<f4").tobytes())
            for row in rows
            if row.error is None
        ]
        with self._one_line():
            self._database.executemany(
                f"INSERT OR REPLACE INTO scores VALUES ({', '.join('?' * (len(Row._fields) - 1))})", values
            )
            if time.monotonic() - self._begun >= COMMIT_SECONDS:
                self._commit()

    def remove(self) -> None:
        """Delete the work, which is closed: its output is written."""
        for file in (
            self.file,
            self.file.with_name(f"{self.file.name}-journal"),
        ):  # sqlite's own, after a kill
            file.unlink(missing_ok=True)

    def _commit(self) -> None:
        self._database.execute("COMMIT")
        self._database.execute("BEGIN IMMEDIATE")
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            why = f"{self.file}: {first_line(error)}"
            raise UserError(f"{why}; move it away, or wait for the process that writes it") from error
