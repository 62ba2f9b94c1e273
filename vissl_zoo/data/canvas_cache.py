"""Canvases in a file of the cache folder: decoded once, shared by the processes and the runs of a machine."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from vissl_zoo.data.canvas import Decoded, decode_all
from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.table import ImageTable

DECODING = 3  # to be raised when canvases come to be made in another way
_SPARE = 2  # free space on the disk, as a multiple of what is needed
_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where this package keeps what it would otherwise compute again.

    `$VISSL_ZOO_CACHE`, by default vissl_zoo in the user's cache folder.
    """
    if named := os.environ.get("VISSL_ZOO_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vissl_zoo"


def map_canvases(
    table: ImageTable,
    canvas: tuple[int, int],
    *,
    disk_limit: int,
    workers: int,
    progress: bool,
) -> Decoded | None:
    """The canvases of a table, decoded if the cache has them not; None if the disk has no room for them.

    There is room if all canvases together stay below `disk_limit` bytes, for which the longest unused ones are
    removed, and twice the need is free. One process decodes and the others wait. The system ends its lock with the
    process, however that ends, and a folder gets its name only when it is complete.
    """
    parent = cache_folder() / "canvases"
    described = f"{table.fingerprint} {table.split} {canvas} v{DECODING} ".encode()
    shape = (len(table), 3, *canvas)
    need = int(np.prod(shape))
    if need > disk_limit:
        return None
    folder = parent / hashlib.sha256(described).hexdigest()[:24]
    try:
        if not (folder / "complete").exists():
            parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not (folder / "complete").exists():  # another process may have made it meanwhile
                    if not _make_room(parent, need, disk_limit):
                        return None
                    with _unfinished(folder, shape) as (unfinished, pixels):
                        made = decode_all(table, pixels, workers=workers, progress=progress)
                        pixels.flush()
                        np.save(unfinished / "sizes.npy", made.sizes)
                        failed = [(bad.row, bad.name, bad.reason) for bad in made.failed]
                        (unfinished / "complete").write_text(json.dumps(failed))
        os.utime(folder)  # when it was last used
        pixels = np.load(folder / "pixels.npy", mmap_mode="c")  # private: torch wants memory it may write to
        failed = json.loads((folder / "complete").read_text())
        sizes = np.load(folder / "sizes.npy")
        return Decoded(pixels, sizes, [BadImage(*bad) for bad in failed])
    except (OSError, ValueError, Timeout, NotImplementedError) as error:  # the last: no locks on this disk
        _logger.warning("no memory map in %s (%s): images are decoded on the fly", parent, error)
        return None


@contextlib.contextmanager
def _unfinished(folder: Path, shape: tuple[int, ...]):
    """(a folder that becomes `folder` when all goes well, and else goes, its pixels uint8 of `shape`)."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a crash left; whoever holds the lock is alone here
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.mkdir()
    try:
        file = unfinished / "pixels.npy"
        pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up, or a quota, kills the process
            with open(file, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
        yield unfinished, pixels
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _make_room(parent: Path, need: int, disk_limit: int) -> bool:
    """Whether canvases of `need` bytes fit, once those that have long been unused are gone."""
    for left in parent.glob("*.unfinished"):  # by a crash, unless its lock is held
        with contextlib.suppress(Timeout), FileLock(parent / f"{left.stem}.lock", timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    maps = sorted(parent.glob("*/complete"), key=lambda file: file.parent.stat().st_mtime)
    sizes = {file.parent: (file.parent / "pixels.npy").stat().st_size for file in maps}
    for folder, size in list(sizes.items()):
        if sum(sizes.values()) + need <= disk_limit:
            break
        _logger.warning("removing %s, %.1f GiB of decoded images, to make room", folder, size / 2**30)
        shutil.rmtree(folder, ignore_errors=True)  # a process that has it open keeps it
        del sizes[folder]
    return shutil.disk_usage(parent).free >= _SPARE * need
