"""The files under a URL: of an object store (s3://, gs://, hf://), of file:// and of whatever else fsspec opens."""

from __future__ import annotations

import glob
from pathlib import PurePosixPath
from typing import NamedTuple

import fsspec

from vissl_zoo.data.decode import why_unreadable
from vissl_zoo.data.files import IMAGE_SUFFIXES
from vissl_zoo.errors import UserError

KINDS = {
    "parquet": frozenset((".parquet", ".pq")),
    "webdataset": frozenset((".tar",)),
    "images": IMAGE_SUFFIXES,
}


class StoredFiles(NamedTuple):
    """Files of one kind.

    Attributes:
        kind: "parquet", "webdataset" (tars) or "images": the first of them that there is.
        files: by sorted URL, what the store says of each file: it changes with the file.
    """

    kind: str
    files: dict[str, str]


def is_url(path: str) -> bool:
    """Whether a path names something that fsspec opens, and no local file."""
    return "://" in path


def find_stored_files(url: str) -> StoredFiles:
    """The files that a URL stands for: itself, all in the folder, or those that match a glob; hidden ones are left out.

    Raises:
        UserError: the store cannot be reached, its package is not installed, or there is no file of a known kind.
    """
    try:
        system, root = fsspec.url_to_fs(url)
        names = system.glob(root) if glob.has_magic(root) else system.find(root)
        if system.isfile(root):
            names = [root]
        found = {name: PurePosixPath(name.removeprefix(root)) for name in names}
        shown = [n for n, own in found.items() if not any(p.startswith((".", "__")) for p in own.parts)]
        for kind, suffixes in KINDS.items():
            chosen = sorted(name for name in shown if PurePosixPath(name).suffix.lower() in suffixes)
            if chosen:
                return StoredFiles(kind, {system.unstrip_protocol(n): str(system.info(n)) for n in chosen})
    except Exception as error:  # every store has its own
        raise UserError(f"{url}: cannot be read ({why_unreadable(error)})") from error
    raise UserError(f"{url}: no image, parquet file or tar is found there")
