"""`import vissl_zoo` changes nothing, and timm knows the models all the same, in whichever order the two come."""

import subprocess
import sys

import pytest

import vissl_zoo

CHANGES_NOTHING = """
import os, sys, threading
environment, path = dict(os.environ), list(sys.meta_path)
import vissl_zoo
assert dict(os.environ) == environment
assert threading.active_count() == 1
heavy = {"torch", "timm", "numpy", "PIL"} & set(sys.modules)
assert not heavy, heavy
assert set(vissl_zoo.__all__) <= set(dir(vissl_zoo))
"""
TIMM_LATER = """
import importlib.util
assert importlib.util.find_spec("timm")  # as libraries ask whether timm is there: that is no import
from timm import create_model, list_models
assert "vi_simsiam_resnet18" in list_models()
import timm
assert type(timm.__loader__).__module__ == type(timm.__spec__.loader).__module__ != "vissl_zoo.registration"
assert sys.meta_path == path
"""
OURS_FIRST = """
model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet")
assert isinstance(model.represent, object) and isinstance(vissl_zoo.__version__, str)
import timm
assert "vi_simsiam_resnet18" in timm.list_models() and sys.meta_path == path
"""


@pytest.mark.parametrize("then", [TIMM_LATER, OURS_FIRST], ids=["timm later", "ours first"])
def test_the_import_changes_nothing_and_the_models_are_registered_with_timm(then):
    subprocess.run([sys.executable, "-c", CHANGES_NOTHING + then], check=True)


def test_every_name_of_the_package_is_there_and_no_other():
    assert all(getattr(vissl_zoo, name) is not None for name in vissl_zoo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fit_kapa'"):
        _ = vissl_zoo.fit_kapa
