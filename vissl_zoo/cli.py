"""A command line read into a dataclass: every field is a flag, and what cannot be read is one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import docstring_parser
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
    if not {"-h", "--help"}.isdisjoint(arguments):
        _join_lines_of_help(default)
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


def _join_lines_of_help(options: Any) -> None:
    """Give the fields of a dataclass, and of those in it, their docstrings with each paragraph in one line.

    tyro itself keeps the line breaks of an indented docstring, and wraps those lines once more. It looks into a field's
    metadata first: what stands there already stays.
    """
    for field in dataclasses.fields(options):
        text = _docstrings(type(options)).get(field.name)
        if text and "help" not in field.metadata:
            paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
            field.metadata = {**field.metadata, "help": "\n\n".join(paragraphs)}
        if dataclasses.is_dataclass(value := getattr(options, field.name)):
            _join_lines_of_help(value)


@lru_cache
def _docstrings(kind: type) -> dict[str, str]:
    """The docstring of each field of a dataclass, its own or inherited; none where there is no source to read."""
    found = {}
    for parent in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        with contextlib.suppress(OSError, TypeError):
            parameters = docstring_parser.parse_from_object(parent).params
            found |= {p.arg_name: p.description for p in parameters if p.description}
    return found


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
