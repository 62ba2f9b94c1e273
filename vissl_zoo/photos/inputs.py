"""From the PATHs that a person types to tables of images, each image under a name by which it can be opened again."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL.Image import Image as PILImage

from vissl_zoo import data
from vissl_zoo.data.decode import decode, why_unreadable
from vissl_zoo.data.files import LocalFiles, as_path, as_text, find_local_files
from vissl_zoo.data.object_store import find_stored_files, is_url
from vissl_zoo.errors import UserError

FILES = "files"  # what the table of all single files is called
_ROW = re.compile(r"(?P<source>.+)#(?:(?P<split>[^#/]+)/)?(?P<row>\d+)", re.DOTALL)


class Part(NamedTuple):
    """Images that are read from one table.

    Attributes:
        table: the images.
        paths: (N,) what to call each: a file's path as it was typed, or SOURCE#ROW, SOURCE#SPLIT/ROW for a row of a
            parquet file or a Hub data set, SOURCE as it was typed.
        stamps: (N,) int64, another number when the image has changed: of a file's size and time.
        files: how many rows each parquet file has; empty where that is not known.
    """

    table: data.ImageTable
    paths: list[str]
    stamps: np.ndarray
    files: tuple[int, ...] = ()

    def shard(self, number: int, of: int) -> Part:
        """See `Inputs.shard`."""
        if self.table.path != FILES:
            return self.run(len(self.paths) * (number - 1) // of, len(self.paths) * number // of)
        rows = np.argsort(np.array(self.paths, dtype=object), kind="stable")[number - 1 :: of]
        where = [value["path"] for value in self.table.encoded.select(rows)["image"]]
        # A table of its own, which knows of no other file: it may be sent elsewhere.
        table = _files_table(where, self.stamps[rows])
        return Part(table, [self.paths[row] for row in rows], self.stamps[rows])

    def run(self, start: int, end: int) -> Part:
        """The rows from `start` to before `end`."""
        table = self.table.select(np.arange(start, end))
        return Part(table, self.paths[start:end], self.stamps[start:end])


class Inputs(NamedTuple):
    """All images that were asked for, each once.

    Attributes:
        parts: the images.
        repeated: how many files were named again.
        tables: the parquet files that are read, and those that say more of images.
    """

    parts: list[Part]
    repeated: int
    tables: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(part.paths) for part in self.parts)

    @property
    def file_count(self) -> int:
        """How many parquet files there are; 0 where there is anything else, too."""
        return sum(len(part.files) for part in self.parts) if all(p.files for p in self.parts) else 0

    def shard(self, number: int, of: int) -> Inputs:
        """The images of shard `number`, counted from 1, of `of`: together the shards have each image once.

        Of images it takes every `of`-th of the sorted paths, of a table a run of rows, which lie together on the disk.
        Where there are parquet files alone, `of` of them, a shard is one of these.
        """
        if of == self.file_count:
            ends = [(part, np.cumsum((0, *part.files))) for part in self.parts]
            runs = [(part, a, b) for part, own in ends for a, b in itertools.pairwise(own.tolist())]
            part, start, end = runs[number - 1]
            return Inputs([part.run(start, end)], self.repeated, self.tables)
        return Inputs([part.shard(number, of) for part in self.parts], self.repeated, self.tables)


def find_inputs(paths: Sequence[str], split: str | None = None) -> Inputs:
    """Open everything that was named; nothing is decoded yet.

    A folder of images stands for all images in it, its splits together: who scores photos means all of them.

    Args:
        paths: folders, globs, image files, parquet files, tars or folders of them, URLs of these, Hub data sets
            (org/name), `shapes`.
        split: of parquet files and data sets, the one to take; by default all.

    Raises:
        UserError: a path names nothing, holds no image, or cannot be read.
    """
    files: dict[str, str] = {}  # where it is -> as it was typed
    stored: dict[str, str] = {}  # URL -> what its store says of it
    tables: list[Part] = []
    repeated = 0
    opened, read = set(), []
    for path in paths:
        if not path:
            raise UserError("a PATH is empty; the folder that you are in is called .")
        local = None if path == "shapes" or is_url(path) else find_local_files(path)
        if is_url(path) and (found := find_stored_files(path)).kind == "images":
            repeated += len(found.files.keys() & files.keys())
            stored |= found.files
            files |= {url: url for url in found.files}
        elif local is not None and local.kind == "images":
            typed = _typed_root(path, local.root)
            for file in (f for group in (*local.splits.values(), local.outside) for f in group):
                where = os.path.abspath(file)
                repeated += where in files
                files.setdefault(where, os.path.join(typed, file.relative_to(local.root)))
            read += map(os.fspath, local.metadata)
        elif (key := os.path.abspath(path) if local is not None else path) not in opened:
            opened.add(key)
            tables += _open_tables(path, split, local)
            read += [os.fspath(f) for group in (local.splits.values() if local else ()) for f in group]
        else:
            repeated += 1
    parts = [_files_part(files, stored)] if files else []
    return Inputs(parts + tables, repeated, tuple(read))


def read_image(path: str, folder: str | os.PathLike = ".", shape: tuple[int, int] | None = None) -> PILImage:
    """The upright RGB image of a `path` that `find_inputs` gave.

    Args:
        path: a file or SOURCE#ROW.
        folder: against which a relative path is meant, if it is not found from here.
        shape: (height, width) wanted in the end, which lets a large JPEG be decoded smaller; see `decode`.

    Raises:
        UserError: one line on why it cannot be read.
    """
    places = [as_path(path), as_path(os.path.join(folder, path))]
    try:
        found = next((p for p in places if p.is_file()), None)
        if found is None and (match := _ROW.fullmatch(path)):
            return _opened(match["source"], match["split"], os.fspath(folder)).read(int(match["row"]))
        if found is None and is_url(path):
            return data.open_images(path).read(0)
        return decode(found or places[0], shape)[0]
    except UserError:
        raise
    except Exception as error:  # on damaged data Pillow raises nearly anything
        raise UserError(f"{path}: {why_unreadable(error)}") from error


@lru_cache(maxsize=4)
def _opened(source: str, split: str | None, folder: str) -> data.ImageTable:
    beside = Path(folder, source)
    where = os.fspath(beside) if not Path(source).exists() and beside.exists() else source
    return data.open_images(where, split=split or data.available_splits(where)[0])


def _typed_root(path: str, root: Path) -> str:
    """The root of the files of `path`, written as the person wrote it: absolute only if `path` was."""
    expanded = os.path.expanduser(path)
    if os.path.isabs(expanded):
        return os.fspath(root)
    typed = expanded if os.path.isdir(expanded) else os.path.relpath(root)
    return "" if os.path.normpath(typed) == "." else typed


def _files_part(files: dict[str, str], stored: dict[str, str]) -> Part:
    """Files as one table, so that a folder of many small folders is still read in full batches."""
    # Arrow holds text as UTF-8; a name of other bytes is shown escaped, and its row fails when it is read.
    said = [_number(stored[path]) if path in stored else _file_stamp(path) for path in files]
    stamps = np.array(said, dtype=np.int64)
    table = _files_table([as_text(path) for path in files], stamps)
    return Part(table, [as_text(path) for path in files.values()], stamps)


def _files_table(where: list[str], stamps: np.ndarray) -> data.ImageTable:
    """The table of the files at `where`, (N,) UTF-8; `stamps` are those of a `Part`."""
    from datasets import Dataset, Features, Image

    from vissl_zoo.data.sources import Source

    rows = {"image": [{"path": path, "bytes": None} for path in where]}
    dataset = Dataset.from_dict(rows, features=Features(image=Image(decode=False)))
    digest = hashlib.sha256("\0".join(where).encode() + stamps.tobytes()).hexdigest()[:16]
    source = Source(FILES, ("train",), _Constant(dataset), _Constant(digest))
    return data.ImageTable(source, "train", dataset, "image", None, None)


@dataclass(frozen=True)
class _Constant:
    """Always the same answer. A class, since functions made on the spot do not pickle for worker processes."""

    value: Any

    def __call__(self, *args: object) -> Any:
        return self.value


def _file_stamp(path: str) -> int:
    try:
        stat = os.stat(path)
    except OSError:  # a broken link: its row says so when it is read
        return 0
    return _number(f"{stat.st_size} {stat.st_mtime_ns}")


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _open_tables(path: str, split: str | None, local: LocalFiles | None) -> list[Part]:
    splits = data.available_splits(path)
    chosen = [split] if split else splits
    parts = []
    for name in chosen:
        table = data.open_images(path, split=name)
        place = f"{path}#" if len(splits) == 1 else f"{path}#{table.split}/"
        stamp = _number(table.fingerprint)
        names = [f"{place}{row}" for row in range(len(table))]
        # None of a part of a split.
        own = local.splits.get(table.split, ()) if local and local.kind == "parquet" else ()
        counts = tuple(rows for file in own if (rows := pq.read_metadata(file).num_rows))
        parts.append(Part(table, names, np.full(len(table), stamp, dtype=np.int64), counts))
    return parts
