"""The flags that every benchmark has, and how its command line is read."""

from __future__ import annotations

import dataclasses
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
    """How to measure.

    Attributes:
        LEAST: of a number, or of each of several, where that is not 1; seconds need only be positive.
    """

    LEAST = {}

    quick: bool = False
    """Small sizes and few repeats, to see that it works: no figures to rely on."""
    output: str | None = None
    """Also write the JSON lines to this file."""
    threads: int | None = None
    """Threads of torch and its libraries; by default what they choose. Workers of a data loader come on top."""

    def validate(self) -> None:
        """Refuse what no benchmark can work with.

        Raises:
            UserError: one line that names the flag.
        """
        for option in dataclasses.fields(self):
            value, flag = getattr(self, option.name), option.name.replace("_", "-")
            for number in value if isinstance(value, tuple) else (value,):
                least = self.LEAST.get(option.name, 1)
                if isinstance(number, int) and not isinstance(number, bool) and number < least:
                    raise UserError(f"--{flag} must be at least {least}, not {number}")
                if isinstance(number, float) and not 0 < number < float("inf"):
                    raise UserError(f"--{flag} must be a positive number, not {number}")


O = TypeVar("O", bound=Options)  # noqa: E741


def main(script: str, default: O, about: str, measure: Callable[[O, Report], None]) -> int:
    """Run a benchmark's command line; returns the exit code, which is 2 after one line about bad input."""
    signal.signal(signal.SIGTERM, _leave)  # so that stopped contestants are not left behind
    try:
        options = parse_flags(type(default), default, sys.argv[1:], f"benchmarks/{script}.py", about)
        options.validate()
        set_threads(options.threads)
        measure(options, Report(options.output, options.quick))
    except UserError as error:
        print(f"benchmarks/{script}.py: {error}", file=sys.stderr)
        return 2
    return 0


def _leave(*_: object) -> None:
    sys.exit(143)
