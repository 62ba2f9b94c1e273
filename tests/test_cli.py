"""What --help shows of a dataclass: its field docstrings as paragraphs, those of inherited and nested fields, too."""

import os
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from vissl_zoo.cli import Count, Fraction, OptionalCount, ScoresFile, Seed, Within, parse_flags
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

    scores: ScoresFile = ""
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
        (["x.csv"], Optional("x.csv")),
        (["x.csv", "--size", "3", "--kind", "b"], Optional("x.csv", 3, "b")),
        (["--size", "None", "--kind", "None", "x.csv"], Optional("x.csv")),
        (["x.csv", "--pair", "1", "2"], Optional("x.csv", pair=(1, 2))),
    ],
)
def test_flags_that_may_be_left_out(typed, options):
    assert parse_flags(Optional, Optional(size=None), typed, "prog", "about") == options


def test_none_takes_a_value_away():
    options = parse_flags(Optional, Optional("x.csv", size=7), ["--size", "None"], "prog", "about")
    assert options == Optional("x.csv")


def test_an_argument_that_is_missing_is_one_line_that_names_it():
    with pytest.raises(UserError, match=r"^filter needs SCORES \(see prog filter --help\)$"):
        parse_flags(Optional, Optional(), ["--size", "3"], "prog filter", "about")


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


@dataclass(frozen=True)
class InnerLimited:
    """Nested."""

    rate: Annotated[float, Within(0, 2)] = 1.0


@dataclass(frozen=True)
class Limited:
    """Numbers that have limits."""

    count: Count = 3
    side: OptionalCount = None
    share: Fraction = 0.5
    seed: Seed = 0
    data: InnerLimited = field(default_factory=InnerLimited)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--count", "0"], "--count must be at least 1, not 0"),
        (["--side", "0"], "--side must be at least 1, not 0"),
        (["--share", "0"], r"--share must be in \(0, 1\], not 0.0"),
        (["--share", "nan"], "--share"),
        (["--seed", "4294967296"], r"--seed must be in \[0, 4294967295\]"),
        (["--data.rate", "2.1"], r"--data\.rate must be in \[0, 2\], not 2.1"),
    ],
)
def test_a_number_out_of_its_limits_is_one_line_that_names_the_flag(typed, said):
    with pytest.raises(UserError, match=said):
        parse_flags(Limited, Limited(), typed, "prog", "about")


def test_the_ends_of_the_limits_are_within():
    typed = ["--count", "1", "--side", "1", "--share", "1", "--seed", "4294967295", "--data.rate", "0"]
    options = parse_flags(Limited, Limited(), typed, "prog", "about")
    assert options == Limited(1, 1, 1.0, 2**32 - 1, InnerLimited(0.0))
