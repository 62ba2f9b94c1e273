"""Self-supervised vision models that know when they are unsure, as a plug-in of timm.

`import vissl_zoo` makes the models known to timm, before or after `import timm`:
`timm.create_model("vi_simsiam_resnet18")`. Beyond that it changes nothing, and what a call needs is loaded by the call.
"""

from typing import TYPE_CHECKING

from vissl_zoo.lazy import load_on_demand
from vissl_zoo.registration import register_with_timm

if TYPE_CHECKING:
    from vissl_zoo.data import open_image
    from vissl_zoo.evaluation import evaluate
    from vissl_zoo.models import Representation, add_kappa_head, create_model
    from vissl_zoo.photos.scoring import score
    from vissl_zoo.uncertainty import fit_kappa

__version__ = "0.1.0"  # pyproject.toml reads it here

__all__ = [
    "Representation",
    "__version__",
    "add_kappa_head",
    "create_model",
    "evaluate",
    "fit_kappa",
    "open_image",
    "score",
]

__getattr__, __dir__ = load_on_demand(
    __name__,
    {
        "data": ("open_image",),
        "evaluation": ("evaluate",),
        "uncertainty": ("fit_kappa",),
        "models": ("Representation", "add_kappa_head", "create_model"),
        "photos.scoring": ("score",),
    },
)
register_with_timm()
