"""What --help shows of a dataclass: its field docstrings as paragraphs, those of inherited and nested fields, too."""

import os
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest

from vissl_zoo.cli import ScoresFile, parse_flags
from vissl_zoo.errors import UserError


@dataclass(frozen=True)
class Inner:
    """Nested."""

    depth: int = 1
    """How deep it is, in a docstring
    of two lines."""


@dataclass(frozen=True)
class Base:
    """Inherited."""

    width: int = 2
    """How wide it is, with a line that
    (in brackets) goes on."""


@dataclass(frozen=True)
class Options(Base):
    """All."""

    inner: Inner = field(default_factory=Inner)
    height: int = 3


def test_help_wraps_paragraphs_not_the_lines_of_the_source(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    for _ in range(2):  # what is noted in the class the first time does no harm the second
        with pytest.raises(SystemExit) as stop:
            parse_flags(Options, Options(), ["--help"], "prog", "about")
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert "How wide it is, with a line that (in brackets) goes on. (default: 2)" in shown
        assert "How deep it is, in a docstring of two lines. (default: 1)" in shown
        assert "--height" in shown


def test_values_come_through():
    options = parse_flags(Options, Options(), ["--inner.depth", "5"], "prog", "about")
    assert options == Options(inner=Inner(depth=5))


@dataclass(frozen=True)
class Optional:
    """Flags that may be left out."""

    scores: ScoresFile = None
    size: int | None = None
    kind: Literal["a", "b"] | None = None
    pair: tuple[int, int] | None = None


def test_help_names_what_a_flag_takes_and_not_none(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse_flags(Optional, Optional(), ["--help"], "prog", "about")
    shown = capsys.readouterr().out
    assert "prog [-h] SCORES " in shown
    for flag in ("--size INT ", "--kind {a,b} "):
        assert flag in shown


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ([], Optional()),
        (["x.csv", "--size", "3", "--kind", "b"], Optional("x.csv", 3, "b")),
        (["--size", "None", "--kind", "None"], Optional()),
        (["--pair", "1", "2"], Optional(pair=(1, 2))),
    ],
)
def test_flags_that_may_be_left_out(typed, options):
    assert parse_flags(Optional, Optional(size=None), typed, "prog", "about") == options


def test_none_takes_a_value_away():
    assert parse_flags(Optional, Optional(size=7), ["--size", "None"], "prog", "about") == Optional()


@pytest.mark.parametrize("typed", [["--size", "x"], ["--kind", "c"], ["--pair", "1"]])
def test_a_value_that_a_flag_cannot_take_is_one_line_that_names_it(typed):
    with pytest.raises(UserError, match=typed[0]) as error:
        parse_flags(Optional, Optional(), typed, "prog", "about")
    assert "\n" not in str(error.value)


def test_a_reader_of_the_help_who_leaves_early_ends_it_without_a_word(monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as stop:
            parse_flags(Options, Options(), ["--help"], "prog", "about")
    assert stop.value.code == 0
    assert capsys.readouterr().err == ""
