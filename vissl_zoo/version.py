"""The version that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("vissl_zoo")
except PackageNotFoundError:  # torch.hub runs a checkout that was never installed
    __version__ = "0+unknown"
