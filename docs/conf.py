"""How Sphinx builds these pages: `python -m sphinx -W -b html docs OUT`."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import vissl_zoo

project = "vissl_zoo"
author = "the authors of vissl_zoo"
release = vissl_zoo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "vissl_zoo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "imported-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # an attribute `mean` is one of several: its class is plain to see
highlight_language = "text"  # of a block that names no language: most are commands
default_role = "code"  # the docstrings are plain prose with `code` in single backticks


def plain(app, what, name, thing, options, lines: list[str]) -> None:
    """Let reStructuredText read a docstring as it was meant: |x| and * are mathematics, an indented block is code."""
    done: list[str] = []
    literal, before = False, ""  # before: the last line that was not empty
    for line in lines:
        indented = line.startswith("    ")
        if indented and done and not done[-1] and not before.startswith("    "):
            literal = True
            done += ["::", ""]
        elif line and not indented:
            literal = False
        before = line or before
        done.append(line if literal else "".join(map(_escape, re.split(r"(`+[^`]*`+)", line))))
    lines[:] = done


def _escape(part: str) -> str:
    return part if part.startswith("`") else re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part)


def setup(app) -> None:
    """Before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", plain, priority=400)
