"""Files written whole, and numbers as text: what every room that writes shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vissl_zoo.errors import UserError


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
        write(unfinished)
        os.replace(unfinished, file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write a text as UTF-8, whole, with the line ends that it has.

    Raises:
        UserError: it cannot be written.
    """
    write_whole(file, lambda path: path.write_bytes(text.encode()))


def short_number(value: float | None) -> str:
    """A number for people: four digits, without an exponent where it is large; "undefined" for None."""
    if value is None:
        return "undefined"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
