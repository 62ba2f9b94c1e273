"""A command line read into a dataclass: every field is a flag, and what cannot be read is one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import docstring_parser
import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from vissl_zoo.errors import UserError

T = TypeVar("T")
ScoresFile = Annotated[
    tyro.conf.Positional[str | None], tyro.conf.arg(metavar="SCORES", help_behavior_hint="")
]

_RULES = ConstructorRegistry()


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
                registry=_RULES,
            )
    except BrokenPipeError:
        leave_closed_stdout()
        raise SystemExit(0) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_one_line(said.getvalue())} (see {prog} --help)") from None
    sys.stderr.write(said.getvalue())
    return options


def leave_closed_stdout() -> None:
    """After a BrokenPipeError: `| head` has read enough, and nothing more can be said on stdout, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@_RULES.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`X | None` reads as X in the help, where tyro has `{None}|X`; `None` may be typed all the same."""
    kinds = get_args(info.type)
    if get_origin(info.type) not in (Union, UnionType) or NoneType not in kinds:
        return None
    others = Union[tuple(kind for kind in kinds if kind is not NoneType)]  # noqa: UP007  (of a tuple)
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(others, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec) or spec.nargs != 1:
        return None  # tyro's own rule says what is wrong
    return replace(
        spec,
        choices=spec.choices and (*spec.choices, "None"),
        instance_from_str=lambda words: None if words == ["None"] else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )


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
