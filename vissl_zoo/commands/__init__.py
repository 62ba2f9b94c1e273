"""The `vissl-zoo` command. Every module here is one subcommand, found by itself, with `ABOUT` and `main(arguments)`.

The subcommand `fit-kappa` is the module `fit_kappa`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from types import ModuleType

from vissl_zoo.cli import leave_closed_stdout
from vissl_zoo.errors import UserError

COMMANDS = tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)))


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code, which is 2 after one line on stderr about bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):  # a pipe or console of another encoding may lack κ
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: vissl-zoo COMMAND …; `vissl-zoo COMMAND --help` explains one\n")
        for name in COMMANDS:
            print(f"  {name:10}  {_module(name).ABOUT}")
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"unknown command {name!r}{hint}; there are: {', '.join(COMMANDS)}")
        _module(name).main(rest)
        sys.stdout.flush()
    except UserError as error:
        print(f"vissl-zoo: {error}", file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:  # Arrow and safetensors take UTF-8 alone
        print(f"vissl-zoo: {error.object!a} is not UTF-8: rename it", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print("vissl-zoo: out of memory; smaller images or batches need less (see --help)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("vissl-zoo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        leave_closed_stdout()
    return 0


def _out_of_memory(error: Exception) -> bool:
    """Told by name and text: torch raises a plain RuntimeError on a CPU, and is not imported to print a help."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
