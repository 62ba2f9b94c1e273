"""The protocols: one file each, found by itself and called by its name (but for a `_protocol` at its end).

A protocol is a module with

- `TITLE`, its heading in the report;
- `NEEDS`, a subset of {"labels", "kappa", "train", "ambiguity"}: where the data or the model lack it, the protocol is
  left out and the report says so;
- `Options`, a frozen dataclass whose fields become flags of `vissl-zoo evaluate`;
- `evaluate(evaluation, options)`, which yields (name, value) pairs. Names are dotted paths in metrics.json; values are
  numbers, strings, dicts of them, or `Undefined`;
- `PAPER`, which maps names to the paper's figures, with their setting, where it has any.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

PROTOCOLS: dict[str, ModuleType] = {
    m.name.removesuffix("_protocol"): importlib.import_module(f"{__name__}.{m.name}")
    for m in pkgutil.iter_modules(__path__)
}
