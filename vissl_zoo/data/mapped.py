"""Canvases in a memory-mapped file of the cache: decoded once, shared by the processes and the runs of a machine."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from vissl_zoo.data.cache import cache_folder
from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.held import HeldStore, decode_all
from vissl_zoo.data.table import ImageTable
from vissl_zoo.data.tally import BadImageTally

DECODING = 1  # to be raised when canvases come to be made in another way
_SPARE = 2  # free space on the disk, as a multiple of what is needed
_logger = logging.getLogger(__name__)


class MappedStore(HeldStore):
    """All images decoded into a file that is read as memory; `open_mapped` makes it.

    A batch is gathered in threads, a few batches ahead: what the system has dropped from memory is then read from
    the disk while the model computes.
    """

    ahead = 4


def open_mapped(
    table: ImageTable,
    rows: np.ndarray,
    canvas: tuple[int, int],
    tally: BadImageTally,
    *,
    disk_limit: int,
    workers: int,
    progress: bool,
) -> MappedStore | None:
    """The map of these rows (M,) at this canvas, made if it is not in the cache; None if the disk has no room for it.

    There is room if all maps together stay below `disk_limit` bytes, for which the longest unused ones are removed,
    and twice the need is free. The first process decodes and the others wait; the lock is the system's, which ends it
    with the process however that ends, and a map gets its name only when it is complete.

    Raises:
        UserError: more corrupt images than `tally` tolerates.
    """
    parent = cache_folder() / "canvases"
    folder = parent / _key(table, rows, canvas)
    try:
        if not (folder / "complete").exists():
            need = len(rows) * 3 * canvas[0] * canvas[1]
            parent.mkdir(parents=True, exist_ok=True)
            with FileLock(parent / f"{folder.name}.lock"):
                if not (folder / "complete").exists():  # another process may have made it meanwhile
                    if not _make_room(parent, need, disk_limit):
                        return None
                    _decode(table, rows, canvas, folder, workers=workers, progress=progress)
        os.utime(folder)  # when it was last used
        pixels = np.load(folder / "pixels.npy", mmap_mode="c")  # private: torch wants memory it may write to
        sizes = np.load(folder / "sizes.npy")
        bad = json.loads((folder / "complete").read_text())
    except (OSError, ValueError, Timeout, NotImplementedError) as error:  # the last: no locks on this disk
        _logger.warning("no memory map in %s (%s): images are decoded on the fly", parent, error)
        return None
    good = np.ones(len(rows), dtype=bool)
    for slot, *what in bad:
        good[slot] = False
        tally.add(BadImage(*what))
    tally.check(len(rows))
    tally.report(len(rows))
    return MappedStore(canvas, rows, tally, pixels, sizes, good)


def _key(table: ImageTable, rows: np.ndarray, canvas: tuple[int, int]) -> str:
    described = f"{table.fingerprint} {table.split} {canvas} v{DECODING} ".encode()
    return hashlib.sha256(described + rows.tobytes()).hexdigest()[:24]


def _decode(
    table: ImageTable,
    rows: np.ndarray,
    canvas: tuple[int, int],
    folder: Path,
    *,
    workers: int,
    progress: bool,
) -> None:
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a crash left; whoever holds the lock is alone here
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.mkdir()
    shape = (len(rows), 3, *canvas)
    pixels = np.lib.format.open_memmap(unfinished / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    sizes = np.zeros((len(rows), 2), dtype=np.int64)
    try:
        if hasattr(
            os, "posix_fallocate"
        ):  # else writing to a disk that fills up (or a quota) kills the process
            with open(unfinished / "pixels.npy", "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        failed = decode_all(table, rows, pixels, sizes, workers=workers, progress=progress)
        pixels.flush()
        np.save(unfinished / "sizes.npy", sizes)
        bad = [(slot, error.row, error.name, error.reason) for slot, error in failed]
        (unfinished / "complete").write_text(json.dumps(bad))
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _make_room(parent: Path, need: int, disk_limit: int) -> bool:
    """Whether a map of `need` bytes fits, once maps that have long been unused are gone."""
    if need > disk_limit:
        return False
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
