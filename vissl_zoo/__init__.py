"""Self-supervised vision models that know when they are unsure, as a plug-in of timm.

`import vissl_zoo` makes the models known to timm, before or after `import timm`:
`timm.create_model("vi_simsiam_resnet18")`. Beyond that it changes nothing, and what a call needs is loaded by the call.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vissl_zoo.registration import register_with_timm

if TYPE_CHECKING:
    from vissl_zoo.fitting import fit_kappa
    from vissl_zoo.models import Representation, add_kappa_head, create_model

    __version__: str

__all__ = ["Representation", "__version__", "add_kappa_head", "create_model", "fit_kappa"]

_ROOMS = {
    "Representation": "models",
    "add_kappa_head": "models",
    "create_model": "models",
    "fit_kappa": "fitting",
}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, from the room where it lives, on first use."""
    if name == "__version__":
        value = _version()
    elif name in _ROOMS:
        value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What completion offers: the names of `__all__` too, before they are loaded."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vissl_zoo")
    except PackageNotFoundError:  # torch.hub runs a checkout that was never installed
        return "0+unknown"


register_with_timm()
