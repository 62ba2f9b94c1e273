"""Self-supervised vision models that know when they are unsure, as a plug-in of timm.

`import vissl_zoo` registers the models with timm: `timm.create_model("vi_simsiam_resnet18")`.
"""

from importlib.metadata import PackageNotFoundError, version

from vissl_zoo.models import Representation, add_kappa_head, create_model

__all__ = ["Representation", "__version__", "add_kappa_head", "create_model"]

try:
    __version__ = version("vissl_zoo")
except PackageNotFoundError:  # torch.hub runs a checkout that was never installed
    __version__ = "0+unknown"
