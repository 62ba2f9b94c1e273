"""Locks that keep two processes from one file or folder; the system releases them when the process dies, however."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from vissl_zoo.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where two processes are not kept apart
    fcntl = None

_HELD: dict[Path, int] = {}  # open descriptors, by the lock's file


class Locked(UserError):
    """Another process holds the lock."""


def take_lock(file: Path, what: str) -> None:
    """Hold the lock `file` until `release_lock`, or until this process ends; children do not inherit it.

    Args:
        file: a hidden name beside or in what it guards; made here, removed on release.
        what: what it guards, for the error.

    Raises:
        Locked: one line that names the process that holds it.
        OSError: the file cannot be made.
    """
    if fcntl is None:
        return
    while True:
        # Not through a link, which may lead anywhere. Python's descriptors are not inherited by other programs.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (
                os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "(it has only just begun)"
            )
            os.close(descriptor)
            raise Locked(f"{what} is in use by process {holder}") from None
        except OSError as error:  # some network file systems have no locks
            print(
                f"{file} cannot be locked ({error.strerror}): start no second process there", file=sys.stderr
            )
        if _is_still(file, descriptor):  # else its holder removed it between our two calls
            break
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    _HELD[file] = descriptor


def release_lock(file: Path) -> None:
    """Release a lock of this process; nothing happens if it holds none."""
    if (descriptor := _HELD.pop(file, None)) is not None:
        with contextlib.suppress(OSError):
            file.unlink()  # while it is held: a later process finds another file, and sees that
        os.close(descriptor)


@contextlib.contextmanager
def released_at_the_end() -> Iterator[None]:
    """Release at the end all locks that this process holds."""
    try:
        yield
    finally:
        for file in list(_HELD):
            release_lock(file)


@contextlib.contextmanager
def output_locked(file: Path | None) -> Iterator[None]:
    """Hold the lock of an output file inside; None needs none.

    Raises:
        UserError: another process writes that file, or its folder cannot be written.
    """
    if file is None:
        yield
        return
    target = Path(os.path.realpath(file))
    lock = target.with_name(f".{target.name}.lock")
    try:
        take_lock(lock, str(file))
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        release_lock(lock)


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _forget_in_child() -> None:
    """A forked loader worker that outlives its parent would keep the lock."""
    for descriptor in _HELD.values():
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
