"""What a training run is made of, as data, and the command line that tyro makes of it.

The recipes themselves stand in the files of their methods, as what they change of a base: `vissl_zoo.methods.RECIPES`.
"""

from vissl_zoo.recipes.command_line import DEFAULT, parse
from vissl_zoo.recipes.named_recipe import NOT_MEASURED, NamedRecipe, cifar10, imagenet100
from vissl_zoo.recipes.recipe import Data, MethodOptions, Recipe, Views

__all__ = [
    "DEFAULT",
    "NOT_MEASURED",
    "Data",
    "MethodOptions",
    "NamedRecipe",
    "Recipe",
    "Views",
    "cifar10",
    "imagenet100",
    "parse",
]
