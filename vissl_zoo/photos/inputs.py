"""From the PATHs that a person types to tables of images, each image under a name by which it can be opened again."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL.Image import Image as PILImage

from vissl_zoo import data
from vissl_zoo.data.decode import decode, why_unreadable
from vissl_zoo.data.files import as_path, as_text, find_local_files
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
    """

    table: data.ImageTable
    paths: list[str]
    stamps: np.ndarray

    def shard(self, number: int, of: int) -> Part:
        """See `Inputs.shard`."""
        if self.table.path == FILES:
            rows = np.argsort(np.array(self.paths, dtype=object), kind="stable")[number - 1 :: of]
        else:
            rows = np.arange(len(self.paths) * (number - 1) // of, len(self.paths) * number // of)
        return Part(self.table.select(rows), [self.paths[row] for row in rows], self.stamps[rows])


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

    def shard(self, number: int, of: int) -> Inputs:
        """The images of shard `number`, counted from 1, of `of`: together the shards have each image once.

        Of files it takes every `of`-th of the sorted paths, of a table a run of rows, which lie together on the disk.
        """
        return Inputs([part.shard(number, of) for part in self.parts], self.repeated, self.tables)


def find_inputs(paths: Sequence[str], split: str | None = None) -> Inputs:
    """Open everything that was named; nothing is decoded yet.

    A folder of images stands for all images in it, its splits together: who scores photos means all of them.

    Args:
        paths: folders, globs, image files, parquet files or folders of them, Hub data sets (org/name), `shapes`.
        split: of parquet files and data sets, the one to take; by default all.

    Raises:
        UserError: a path names nothing, holds no image, or cannot be read.
    """
    files: dict[str, str] = {}  # where it is -> as it was typed
    tables: list[Part] = []
    repeated = 0
    opened, read = set(), []
    for path in paths:
        if not path:
            raise UserError("a PATH is empty; the folder that you are in is called .")
        local = None if path == "shapes" else find_local_files(path)
        if local is not None and local.kind != "parquet":
            typed = _typed_root(path, local.root)
            for file in (f for group in (*local.splits.values(), local.outside) for f in group):
                where = os.path.abspath(file)
                repeated += where in files
                files.setdefault(where, os.path.join(typed, file.relative_to(local.root)))
            read += map(os.fspath, local.metadata)
        elif (key := os.path.abspath(path) if local is not None else path) not in opened:
            opened.add(key)
            tables += _open_tables(path, split)
            read += [os.fspath(f) for group in (local.splits.values() if local else ()) for f in group]
        else:
            repeated += 1
    parts = [_files_part(files)] if files else []
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


def _files_part(files: dict[str, str]) -> Part:
    """Files as one table, so that a folder of many small folders is still read in full batches."""
    from datasets import Dataset, Features, Image

    from vissl_zoo.data.sources import Source

    # Arrow holds text as UTF-8; a name of other bytes is shown escaped, and its row fails when it is read.
    where = [as_text(path) for path in files]
    rows = {"image": [{"path": path, "bytes": None} for path in where]}
    dataset = Dataset.from_dict(rows, features=Features(image=Image(decode=False)))
    stamps = np.array([_file_stamp(path) for path in files], dtype=np.int64)
    digest = hashlib.sha256("\0".join(where).encode() + stamps.tobytes()).hexdigest()[:16]
    source = Source(FILES, ("train",), _Constant(dataset), _Constant(digest))
    table = data.ImageTable(source, "train", dataset, "image", None, None)
    return Part(table, [as_text(path) for path in files.values()], stamps)


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


def _open_tables(path: str, split: str | None) -> list[Part]:
    splits = data.available_splits(path)
    chosen = [split] if split else splits
    parts = []
    for name in chosen:
        table = data.open_images(path, split=name)
        place = f"{path}#" if len(splits) == 1 else f"{path}#{table.split}/"
        stamp = _number(table.fingerprint)
        names = [f"{place}{row}" for row in range(len(table))]
        parts.append(Part(table, names, np.full(len(table), stamp, dtype=np.int64)))
    return parts
