"""The `vissl-zoo` command. Every subcommand is the module of its name here, with `main(arguments)`.

Nothing heavy is imported before the subcommand is known, nor before it needs it.
"""

from __future__ import annotations

import difflib
import importlib
import io
import sys

from vissl_zoo.cli import leave_closed_stdout, program_arguments
from vissl_zoo.cpu import spin_less
from vissl_zoo.errors import UserError

COMMANDS = {
    "score": "score photos: κ, uncertainty, embeddings, and a gallery to look at",
    "select": "choose the images to label first: typical, diverse, uncertain or certain",
    "filter": "keep the most certain images, and leave out what cannot be read",
    "dedup": "find near-duplicates by embedding, and keep the most certain of each group",
    "report": "one page about scored photos: galleries, κ, a map of the embedding, duplicates",
    "tta": "find the crop of an image with the highest κ, and the κ-weighted embedding",
    "evaluate": "measure a run, an export or any timm model: accuracy, uncertainty, figures",
    "compare": "correlate the uncertainty of two evaluated models on the same images",
    "fit-kappa": "give any timm backbone a κ: fit a head to unlabelled images, in minutes",
    "publish": "push a run or an export to the Hugging Face Hub, or write the folder",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code, which is 2 after one line on stderr about bad input."""
    arguments = list(program_arguments() if arguments is None else arguments)
    spin_less()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a pipe or console of another encoding may lack κ
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: vissl-zoo COMMAND …; `vissl-zoo COMMAND --help` explains one\n")
        for name, about in COMMANDS.items():
            print(f"  {name:10}  {about}")
        return 0
    name, *rest = arguments
    try:
        if name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"unknown command {name!r}{hint}; there are: {', '.join(COMMANDS)}")
        importlib.import_module(f"{__name__}.{name.replace('-', '_')}").main(rest)
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
