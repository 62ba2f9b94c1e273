"""One method a file; each reads like its column of the paper's Table 1, and ends with its recipes.

Every module here but `base` and `spherical` is one method, found by itself: a new method is one more file. Importing
this package registers the models with timm: each method on each backbone.

    from vissl_zoo.methods import VISimSiam
    method = VISimSiam(timm.create_model("vi_simsiam_resnet18"), variant="beta")
    method(views).loss.backward()
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from torch import nn

from vissl_zoo.methods.base import Method, Objective, Row
from vissl_zoo.models.zoo import register_method
from vissl_zoo.recipes import MethodOptions, NamedRecipe

_modules = [
    importlib.import_module(f"{__name__}.{m.name}")
    for m in pkgutil.iter_modules(__path__)
    if m.name not in ("base", "spherical")
]
_found = [
    value
    for module in _modules
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
]

METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in sorted(_found, key=lambda cls: (cls.row.section, cls.name))
}
"""The methods by name, in the order of the paper's sections and then of their names."""

RECIPES: dict[str, NamedRecipe] = {
    named.name: named
    for module in sorted(_modules, key=lambda module: not module.__name__.endswith(".vi_simsiam"))
    for named in module.RECIPES
}
"""The recipes by name, those of VI-SimSiam and so the demo first."""

globals().update({cls.__name__: cls for cls in METHODS.values()})
if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Method]:
        """The methods' classes, which the line above makes names of this module."""
        ...


def register() -> None:
    """Register the models with timm: a name for each method on each backbone, and one for any other backbone."""
    for cls in METHODS.values():
        register_method(cls.name, cls.row.method, cls.Options().model_args())


def create_method(
    name: str, model: nn.Module, options: MethodOptions | None = None, **changes: Any
) -> Method:
    """The method `name` around `model`, a timm model of the zoo built with `num_classes=0`; see `Method`.

    Raises:
        ValueError: for an unknown name, or options the method refuses.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name](model, options, **changes)


def table() -> str:
    """Table 1 in Markdown, generated from the methods' rows."""
    columns = [cls.row.cells() for cls in METHODS.values()]
    lines = []
    for i, title in enumerate(columns[0]):
        lines.append("| " + " | ".join([title, *(cells[title] for cells in columns)]) + " |")
        if i == 0:
            lines.append("|" + "---|" * (len(columns) + 1))
    return "\n".join(lines)


register()

__all__ = ["METHODS", "RECIPES", "Method", "Objective", "Row", "create_method", "register", "table"]
__all__ += [cls.__name__ for cls in METHODS.values()]
