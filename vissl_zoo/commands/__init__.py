"""The `vissl-zoo` command. Every module here is one subcommand, found by itself, with `ABOUT` and `main(arguments)`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys

from vissl_zoo.errors import UserError

COMMANDS = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__)))


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code, which is 2 after one line on stderr about bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: vissl-zoo COMMAND …; `vissl-zoo COMMAND --help` explains one\n")
        for name in COMMANDS:
            print(f"  {name:10}  {importlib.import_module(f'{__name__}.{name}').ABOUT}")
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"unknown command {name!r}{hint}; there are: {', '.join(COMMANDS)}")
        importlib.import_module(f"{__name__}.{name}").main(rest)
    except UserError as error:
        print(f"vissl-zoo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vissl-zoo: interrupted", file=sys.stderr)
        return 130
    return 0
