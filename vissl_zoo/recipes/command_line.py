"""The command line of a training: an optional recipe and flags, one for every field of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vissl_zoo.errors import UserError
from vissl_zoo.recipes.named_recipe import NamedRecipe
from vissl_zoo.recipes.recipe import Recipe

DEFAULT = "demo"


def parse(arguments: Sequence[str], recipes: Mapping[str, NamedRecipe], *, prog: str = "train.py") -> Recipe:
    """Command line to recipe: an optional name among `recipes`, then flags that change its fields.

    `--help` prints and exits with 0; `RECIPE --help` shows that recipe's values.

    Raises:
        UserError: one line, for an unknown recipe or flag, or a value a flag cannot take.
    """
    from vissl_zoo.cli import parse_flags  # tyro, which only a command line needs

    arguments = list(arguments)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else DEFAULT
    if name not in recipes:
        raise UserError(f"unknown recipe {name!r}{_close(name, recipes)}; there are: {', '.join(recipes)}")
    named = recipes[name]
    named = replace(named, recipe=replace(named.recipe, name=name))
    for place, flag in enumerate(arguments):
        if flag == "--resume" and (arguments[place + 1 : place + 2] or ["-"])[0].startswith("-"):
            arguments[place] = "--resume=on"
    # Dashes keep the lines apart.
    others = "\n".join(f"- {other}: {recipes[other].about}" for other in recipes)
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


def _close(name: str, names: Mapping[str, NamedRecipe]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
