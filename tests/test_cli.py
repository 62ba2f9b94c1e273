"""What --help shows of a dataclass: its field docstrings as paragraphs, those of inherited and nested fields, too."""

from dataclasses import dataclass, field

import pytest

from vissl_zoo.cli import parse_flags


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
