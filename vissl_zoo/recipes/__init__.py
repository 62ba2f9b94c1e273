"""Named recipes, and the command line that tyro makes of them."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace

from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.recipes.base import Data, MethodOptions, NamedRecipe, Recipe, Views


def _discover() -> dict[str, NamedRecipe]:
    """Every module here that has RECIPES, those of VI-SimSiam and so the demo first."""
    names = sorted((m.name for m in pkgutil.iter_modules(__path__)), key=lambda n: (n != "vi_simsiam", n))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {named.name: named for module in modules for named in getattr(module, "RECIPES", ())}


RECIPES = _discover()
DEFAULT = "demo"


def parse(arguments: Sequence[str], *, prog: str = "train.py") -> Recipe:
    """Command line to recipe: an optional recipe name, then flags that change its fields.

    `--help` prints and exits with 0; `RECIPE --help` shows that recipe's values.

    Raises:
        UserError: one line, for an unknown recipe or flag, or a value a flag cannot take.
    """
    arguments = list(arguments)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else DEFAULT
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}{_close(name, RECIPES)}; there are: {', '.join(RECIPES)}")
    named = RECIPES[name]
    if named.recipe.output_dir is None:
        named = replace(named, recipe=replace(named.recipe, output_dir=f"runs/{name}"))
    others = "\n".join(
        f"- {other}: {RECIPES[other].about}" for other in RECIPES
    )  # dashes keep the lines apart
    description = (
        f"{named.statement}\n\n`{prog} RECIPE --help` shows the values of another recipe:\n\n{others}"
    )
    recipe = parse_flags(
        type(named.recipe),
        named.recipe,
        arguments,
        f"{prog} {name}",
        description,
        usage=f"{prog} [RECIPE]" if name == DEFAULT else None,
    )
    if recipe.backbone is not None and recipe.model != recipe.method.name:
        if recipe.backbone != named.recipe.backbone:
            raise UserError(
                f"--backbone {recipe.backbone} needs --model {recipe.method.name}: "
                f"{recipe.model} has a backbone of its own"
            )
        recipe = replace(recipe, backbone=None)  # the recipe's own, which --model took the place of
    recipe.validate()
    return recipe


def _close(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


__all__ = [
    "DEFAULT",
    "RECIPES",
    "Data",
    "MethodOptions",
    "NamedRecipe",
    "Recipe",
    "Views",
    "parse",
]
