"""Self-supervised vision models that know when they are unsure, as a plug-in of timm.

`import vissl_zoo` registers the models with timm: `timm.create_model("vi_simsiam_resnet18")`.
"""

from importlib.metadata import PackageNotFoundError, version

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
