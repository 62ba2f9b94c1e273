"""torch.hub sees the registered names and nothing else."""

import importlib
import importlib.util
import inspect
from pathlib import Path

import timm
import torch

from vissl_zoo.models import entrypoints

REPOSITORY = Path(__file__).parents[2]


def hubconf():
    spec = importlib.util.spec_from_file_location("hubconf", REPOSITORY / "hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_list():
    module = hubconf()
    listed = {
        n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")
    }  # as torch.hub does
    assert listed == set(entrypoints())
    assert all(inspect.getdoc(getattr(module, n)) for n in listed)


def test_dependencies_can_be_imported():
    for name in hubconf().dependencies:
        assert importlib.import_module(name).__name__ == name


def test_load_is_create_model():
    torch.manual_seed(0)
    ours = torch.hub.load(str(REPOSITORY), "simsiam", source="local", backbone="test_resnet").eval()
    torch.manual_seed(0)
    theirs = timm.create_model("simsiam", backbone="test_resnet").eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.represent(x).kappa, theirs.represent(x).kappa)
