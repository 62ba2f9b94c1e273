"""The models come to timm's registry when timm is loaded: at once where it is already, else right after its import.

So `import vissl_zoo` itself loads neither timm nor torch, and yet `timm.create_model` knows the zoo, whichever of the
two is imported first.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODELS = "vissl_zoo.methods"  # importing it registers the models: each method on each backbone


def register_with_timm() -> None:
    """Register the models now or, where timm is not loaded, at the end of its import."""
    if "timm" in sys.modules:
        importlib.import_module(MODELS)
    elif not any(isinstance(finder, TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TimmFinder())


class TimmFinder(MetaPathFinder):
    """Finds timm where everybody else does, and puts a word in for the moment when it is loaded."""

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of timm with its loader wrapped; None for every other module."""
        if fullname != "timm":
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, TimmFinder)]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec


class _RegisteringLoader(Loader):
    """timm's own loader, after which the models are registered. The finder has then done its work and goes."""

    def __init__(self, loader: Any, finder: TimmFinder):
        self.loader, self.finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # the source, the resources: whatever else is asked of a loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader  # no trace of us stays
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        importlib.import_module(MODELS)
