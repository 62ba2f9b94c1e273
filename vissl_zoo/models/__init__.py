"""The registered models. Importing this package adds them to timm's registry and changes nothing else there.

Every module here whose name has no leading underscore is one method: its configurations and its entrypoints.
A new method is one more such file. Only `kappa` is none: any timm backbone with a κ head. The modules are named
after methods, since timm lists modules by their last name and a `resnet` here would join its own.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import timm
from torch import nn

from vissl_zoo.models._backbones import unknown_name
from vissl_zoo.models._build import HEAD_DEFAULTS
from vissl_zoo.models._representation import Representation, RepresentationMixin, add_kappa_head

__all__ = [
    "HEAD_ARGS",
    "METHODS",
    "Representation",
    "RepresentationMixin",
    "add_kappa_head",
    "backbone_of",
    "create_model",
    "entrypoints",
]

_names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
_modules = {name: importlib.import_module(f"{__name__}.{name}") for name in _names}

METHODS = tuple(name for name in _names if name != "kappa")
"""Names of the methods, each also the name of its generic entrypoint. `kappa` is generic too, but no method."""


HEAD_ARGS = frozenset(
    (*HEAD_DEFAULTS, "backbone", "kappa_head", "prototypes", "bottleneck_dim", "teacher_temperature")
)
"""Arguments of the zoo's models that timm's own do not take."""


def entrypoints() -> dict[str, Callable[..., nn.Module]]:
    """Return every registered entrypoint of the zoo by name."""
    return {name: getattr(module, name) for module in _modules.values() for name in module.__all__}


def backbone_of(architecture: str, model_args: Mapping[str, Any]) -> str:
    """The backbone's name, with its tag if any, of a registered architecture built with `model_args`.

    Raises:
        ValueError: no architecture of the zoo.
    """
    if architecture not in entrypoints():
        raise ValueError(f"{architecture} is no architecture of the zoo")
    if architecture in _modules:
        return model_args.get("backbone") or "resnet18"
    return next(architecture.removeprefix(f"{m}_") for m in METHODS if architecture.startswith(f"{m}_"))


def create_model(model_name: str, pretrained: bool = False, **kwargs) -> nn.Module:
    """Create a model as `timm.create_model` does, with help for a misspelled name.

    Args:
        model_name: a name of the zoo or of timm, "local-dir:FOLDER" or "hf-hub:ORG/NAME@REVISION".
        pretrained: load its weights.
        **kwargs: everything that `timm.create_model` takes, and for the zoo's models `kappa_head`,
            `latent_dim`, `kappa_map` and `kappa_hidden` (DINO also `prototypes`, `bottleneck_dim` and
            `teacher_temperature`; the generic names `backbone`).

    Raises:
        ValueError: no such model; the message names close matches.
    """
    if not any(c in model_name for c in ":/\\") and not timm.is_model(model_name):
        raise ValueError(unknown_name(model_name, timm.list_models()))
    return timm.create_model(model_name, pretrained=pretrained, **kwargs)
