"""A command line read into a dataclass: every field is a flag, and what cannot be read is one line."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from vissl_zoo.errors import UserError

T = TypeVar("T")


def program_arguments() -> list[str]:
    """The arguments of this program, started anew in UTF-8 where names of files are read otherwise, as under LC_ALL=C.

    Arrow, safetensors and every file that we write take names in UTF-8. Process, flags and bytes stay the same.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    return sys.argv[1:]


@dataclass(frozen=True)
class Within:
    """The numbers that a flag takes, written into its type: `Annotated[int, Within(1)]`. `above` leaves `low` out."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.above else 'at least'} {self.low}"
        return f"in {'(' if self.above else '['}{self.low}, {self.high}]"


Count = Annotated[int, Within(1)]
OptionalCount = Annotated[int | None, Within(1)]
Seed = Annotated[int, Within(0, 2**32 - 1)]
Fraction = Annotated[float, Within(0, 1, above=True)]

# What must be given: flags, and arguments without a flag.
Required = Annotated[str, "required", tyro.conf.arg(help_behavior_hint="(required)")]
_POSITIONAL = tyro.conf.Positional
ScoresFile = Annotated[str, _POSITIONAL, tyro.conf.arg(metavar="SCORES", help_behavior_hint="")]
ImageFile = Annotated[str, _POSITIONAL, tyro.conf.arg(metavar="IMAGE", help_behavior_hint="")]
Model = Annotated[str, _POSITIONAL, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")]
Run = Annotated[str, _POSITIONAL, tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
Paths = Annotated[tuple[str, ...], _POSITIONAL, tyro.conf.arg(metavar="PATH ...", help_behavior_hint="")]
Evaluations = Annotated[tuple[str, ...], _POSITIONAL, tyro.conf.arg(metavar="A B", help_behavior_hint="")]

_RULES = ConstructorRegistry()


@dataclass(frozen=True)
class DataFlags:
    """The images to learn from, and those to measure on."""

    path: str = "shapes"
    """A Hub data set (org/name), a folder of images, parquet files or a folder of them, or `shapes`."""
    train_split: str = "train"
    """The split to learn from, or a part of one, such as 'train[:90%]'."""
    split: str | None = None
    """The split to measure on, or a part of one; by default `test` or `validation`, whichever exists."""
    image_column: str | None = None
    """The column that holds the images; found by its type if not given."""
    label_column: str | None = None
    """The column that holds the class labels; found if not given, and optional."""
    workers: Annotated[int | None, Within(0)] = None
    """Workers that decode images; by default one for each CPU, 16 at most."""


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
        UserError: one line, for an unknown flag, a value that a flag cannot take, or an argument that is missing.
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
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        notes: tuple = getattr(hint, "__metadata__", ())
        if not getattr(options, name) and (_POSITIONAL in notes or "required" in notes):
            missing = notes[-1].metavar or f"--{name.replace('_', '-')}"
            raise UserError(f"{prog.split()[-1]} needs {missing} (see {prog} --help)")
    check_numbers(options)
    return options


def leave_closed_stdout() -> None:
    """After a BrokenPipeError: `| head` has read enough, and nothing more can be said on stdout, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def check_numbers(options: Any, prefix: str = "--") -> None:
    """Hold every number of a dataclass against the `Within` of its field, also in a tuple or in a nested dataclass.

    Raises:
        UserError: one line that names the flag, which begins with the `prefix`.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in dataclasses.fields(options):
        value: Any = getattr(options, field.name)
        flag = prefix + field.name.replace("_", "-")
        limits = [note for note in getattr(hints[field.name], "__metadata__", ()) if isinstance(note, Within)]
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        for each in limits:
            if not all(number in each for number in numbers):
                raise UserError(f"{flag} must be {each}, not {value}")
        if dataclasses.is_dataclass(value):
            check_numbers(value, f"{flag}.")


@_RULES.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`X | None` reads as X in the help, where tyro has `{None}|X`; `None` may be typed all the same."""
    kinds = get_args(info.type)
    if get_origin(info.type) not in (Union, UnionType) or NoneType not in kinds:
        return None
    others = Union[tuple(kind for kind in kinds if kind is not NoneType)]  # noqa: UP007  (of a tuple)
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(cast(Any, others), info.markers))
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
            help_text = {**field.metadata, "help": "\n\n".join(paragraphs)}
            field.metadata = help_text  # pyright: ignore[reportAttributeAccessIssue]
        if dataclasses.is_dataclass(value := getattr(options, field.name)):
            _join_lines_of_help(value)


@lru_cache
def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, its own or inherited; none where there is no source to read."""
    found = {}
    for parent in (parent for parent in reversed(kind.__mro__) if dataclasses.is_dataclass(parent)):
        with contextlib.suppress(OSError, TypeError, SyntaxError):
            [node] = ast.parse(textwrap.dedent(inspect.getsource(cast(type, parent)))).body
            for field, below in itertools.pairwise(cast(ast.ClassDef, node).body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[ast.unparse(field.target)] = ast.literal_eval(below.value)
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
