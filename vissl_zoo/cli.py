"""A command line read into a dataclass: every field is a flag, and what cannot be read is one line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import TypeVar

import tyro

from vissl_zoo.errors import UserError

T = TypeVar("T")


def parse_flags(
    dataclass_type: type[T],
    default: T,
    arguments: Sequence[str],
    prog: str,
    description: str,
    *,
    usage: str | None = None,
) -> T:
    """The `default` with the fields that the flags in `arguments` change, by tyro.

    `prog` is the command whose --help an error points to; `usage` is shown in its place by --help itself,
    which prints and exits with 0.

    Raises:
        UserError: one line, for an unknown flag or a value that a flag cannot take.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = tyro.cli(
                dataclass_type,
                default=default,
                args=arguments,
                prog=usage or prog,
                description=description,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(said.getvalue())} (see {prog} --help)") from None
    sys.stderr.write(said.getvalue())
    return options


def _one_line(box: str) -> str:
    """The message out of the box that tyro draws: what stands between its title and its next rule."""
    lines = [line.strip(" │") for line in box.splitlines()][1:]
    message: list[str] = []
    for line in lines:
        if line.strip("╭╮╰╯─- "):
            message.append(line)
        elif message:
            break
    text = " ".join(message) or "the command line could not be read"
    if "Perhaps you meant:" in lines:
        text += f"; perhaps you meant {lines[lines.index('Perhaps you meant:') + 1].split()[0]}"
    return text.rstrip(".")
