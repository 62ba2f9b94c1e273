"""One method a file; each reads like its column of the paper's Table 1.

Every module here but `base` is one method, found by itself: a new method is one more file.
"""

from __future__ import annotations

import importlib
import pkgutil

from torch import nn

from vissl_zoo.methods.base import Method, Objective, Row


def _discover() -> dict[str, type[Method]]:
    """The methods by name, in the order of the paper's sections and then of their names."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}")
        for m in pkgutil.iter_modules(__path__)
        if m.name != "base"
    ]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    return {cls.name: cls for cls in sorted(found, key=lambda cls: (cls.row.section, cls.name))}


METHODS = _discover()


def create_method(name: str, model: nn.Module, **options) -> Method:
    """The method `name` around `model`, a timm model of the zoo built with `num_classes=0`.

    Raises:
        ValueError: for an unknown name, or options the method refuses.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name](model, **options)


def table() -> str:
    """Table 1 in Markdown, generated from the methods' rows."""
    columns = [cls.row.cells() for cls in METHODS.values()]
    lines = []
    for i, title in enumerate(columns[0]):
        lines.append("| " + " | ".join([title, *(cells[title] for cells in columns)]) + " |")
        if i == 0:
            lines.append("|" + "---|" * (len(columns) + 1))
    return "\n".join(lines)


__all__ = ["METHODS", "Method", "Objective", "Row", "create_method", "table"]
