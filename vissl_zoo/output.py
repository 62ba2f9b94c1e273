"""Files checked before the work and written whole, numbers as text, nested values by name: what writers share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from vissl_zoo.errors import UserError


@overload
def output_file(path: None, flag: str, suffixes: Sequence[str], reads: Iterable[str | None] = ()) -> None: ...
@overload
def output_file(
    path: str | os.PathLike, flag: str, suffixes: Sequence[str], reads: Iterable[str | None] = ()
) -> Path: ...
def output_file(
    path: str | os.PathLike | None, flag: str, suffixes: Sequence[str], reads: Iterable[str | None] = ()
) -> Path | None:
    """The file that a flag names, checked before any work is done for it; None if there is none.

    Raises:
        UserError: its suffix is not one of `suffixes`, it is a folder, its folder is absent or cannot be written, or it
            is one of the files that the command `reads`.
    """
    if path is None:
        return None
    file = Path(os.path.expanduser(path))
    if file.suffix.lower() not in suffixes:
        raise UserError(f"{flag} {path}: the name must end in {' or '.join(suffixes)}")
    if file.is_dir():
        raise UserError(f"{flag} {path}: that is a folder")
    if not file.parent.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{flag} {path}: the folder {file.parent} cannot be written")
    where = os.path.realpath(file)
    if any(os.path.realpath(os.path.expanduser(read)) == where for read in reads if read):
        raise UserError(f"{flag} {path}: that file is read, and would be written over")
    return file


def write_whole(file: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Let `write` write another file beside `file`, and rename it: a crash leaves the old one or the new one.

    Args:
        file: where it goes; its folder exists.
        write: is given the path to write to, which ends in the same suffix.

    Raises:
        UserError: it cannot be written.
    """
    file = Path(file)
    unfinished = file.with_name(f".{file.stem}.{os.getpid()}{file.suffix}")
    try:
        unfinished.unlink(missing_ok=True)  # a link would be written through
        write(unfinished)
        os.replace(unfinished, file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # where the disk went away; what failed is told already
            unfinished.unlink(missing_ok=True)


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write a text as UTF-8, whole, with the line ends that it has; bytes of names that are no UTF-8 are escaped.

    Raises:
        UserError: it cannot be written.
    """
    # Where the locale is ASCII, Python gives the names of files as surrogates for their bytes.
    said = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    write_whole(file, lambda path: path.write_bytes(said.encode()))


def short_number(value: float | None) -> str:
    """A number for people: four digits, without an exponent where it is large; "undefined" for None."""
    if value is None:
        return "undefined"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
