"""One method a file; each reads like its column of the paper's Table 1."""

from __future__ import annotations

from torch import nn

from vissl_zoo.methods.barlow_twins import BarlowTwins
from vissl_zoo.methods.base import Method, Objective, Row
from vissl_zoo.methods.byol import BYOL
from vissl_zoo.methods.dino import DINO
from vissl_zoo.methods.simclr import SimCLR
from vissl_zoo.methods.simsiam import SimSiam
from vissl_zoo.methods.vi_simsiam import VISimSiam

# The order is that of the README's table. A new method is its file and its name here.
METHODS: dict[str, type[Method]] = {
    cls.name: cls for cls in (SimSiam, SimCLR, BarlowTwins, DINO, BYOL, VISimSiam)
}


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


__all__ = [
    "BYOL",
    "DINO",
    "METHODS",
    "BarlowTwins",
    "Method",
    "Objective",
    "Row",
    "SimCLR",
    "SimSiam",
    "VISimSiam",
    "create_method",
    "table",
]
