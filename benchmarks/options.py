"""The flags that every benchmark has, and how its command line is read."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from measure import Report, set_threads

from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError


@dataclass(frozen=True)
class Options:
    """How to measure."""

    quick: bool = False
    """Small sizes and few repeats, to see that it works: no figures to rely on."""
    output: str | None = None
    """Also write the JSON lines to this file."""
    threads: int | None = None
    """Threads of torch and its libraries; by default what they choose. Workers of a data loader come on top."""


O = TypeVar("O", bound=Options)  # noqa: E741


def main(script: str, default: O, about: str, measure: Callable[[O, Report], None]) -> int:
    """Run a benchmark's command line; returns the exit code, which is 2 after one line about bad input."""
    signal.signal(signal.SIGTERM, _leave)  # so that stopped contestants are not left behind
    try:
        options = parse_flags(type(default), default, sys.argv[1:], f"benchmarks/{script}.py", about)
        if options.threads is not None and options.threads < 1:
            raise UserError(f"--threads must be at least 1, not {options.threads}")
        set_threads(options.threads)
        measure(options, Report(options.output, options.quick))
    except UserError as error:
        print(f"benchmarks/{script}.py: {error}", file=sys.stderr)
        return 2
    return 0


def _leave(*_: object) -> None:
    sys.exit(143)
