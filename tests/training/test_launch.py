"""Which precision a run is given, and by whom."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from vissl_zoo.methods import RECIPES
from vissl_zoo.training import launch

RECIPE = dataclasses.replace(RECIPES["demo"].recipe, output_dir="nowhere")
CPU = torch.device("cpu")


@pytest.fixture
def native(monkeypatch):
    """native(yes) sets whether the hardware computes in bfloat16."""

    def native(yes):
        monkeypatch.setattr(launch, "bfloat16_is_native", lambda device: yes)

    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    return native


def chosen(**changes):
    return launch.choose_precision(dataclasses.replace(RECIPE, **changes), CPU)[0]


@pytest.mark.parametrize("yes, expected", [(True, "bf16"), (False, "no")])
def test_the_hardware_decides(native, yes, expected):
    native(yes)
    assert chosen() == expected
    assert chosen() == expected


@pytest.mark.parametrize("told", ["no", "fp16", "bf16"])
def test_a_flag_decides_before_all_else(native, monkeypatch, told):
    native(told == "no")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    assert chosen(mixed_precision=told, resume="on") == told


@pytest.mark.parametrize("told, expected", [("fp16", "fp16"), ("no", "bf16"), ("", "bf16")])
def test_accelerate_is_heard_where_it_was_told_anything(native, monkeypatch, told, expected):
    native(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    assert chosen() == expected


def test_double_precision_is_left_alone(native):
    native(True)
    assert chosen(dtype="float64") == "no"


def test_a_run_goes_on_as_it_began(native, tmp_path):
    native(True)
    (tmp_path / "recipe.json").write_text(json.dumps({"mixed_precision": "no"}))
    assert chosen(resume="on", output_dir=str(tmp_path)) == "no"


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_run_whose_precision_cannot_be_read(native, tmp_path, content):
    """That is another's to say."""
    native(True)
    (tmp_path / "recipe.json").write_text(content)
    assert chosen(resume="on", output_dir=str(tmp_path)) == "no"


def test_what_is_said():
    said = {
        name: launch.describe_precision(
            dataclasses.replace(RECIPE, mixed_precision=name),
            SimpleNamespace(mixed_precision=name, device=CPU),
        )
        for name in ("no", "bf16")
    }
    assert said == {
        "no": "precision: float32 (--mixed-precision)",
        "bf16": "precision: bf16 (--mixed-precision)",
    }
