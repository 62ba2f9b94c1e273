"""Self-supervised vision models that know when they are unsure, as a plug-in of timm.

`import vissl_zoo` registers the models with timm: `timm.create_model("vi_simsiam_resnet18")`.
"""

import os
from importlib.metadata import PackageNotFoundError, version

# Read by libgomp when torch loads it, and so set before: how long OpenMP's threads spin before they sleep, some 10 µs
# here. Where another program keeps one of the cores busy, its own 300,000 have the threads spin away the time that the
# late one needs: the demo then trains at 23 images/s, and with this at 1,059; on quiet cores at 4,025 and 4,038.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

from vissl_zoo.models import Representation, add_kappa_head, create_model

__all__ = ["Representation", "__version__", "add_kappa_head", "create_model", "fit_kappa"]

try:
    __version__ = version("vissl_zoo")
except PackageNotFoundError:  # torch.hub runs a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str):
    """`fit_kappa`, on demand: it brings data sets and plots along, which a model does not need."""
    if name == "fit_kappa":
        from vissl_zoo.fitting import fit_kappa

        return fit_kappa
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
