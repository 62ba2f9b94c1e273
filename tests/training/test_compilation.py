"""When the backbone is compiled, what it costs to be wrong, and that names stay as they are."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from vissl_zoo.methods import create_method
from vissl_zoo.recipes import RECIPES
from vissl_zoo.speed import Trial
from vissl_zoo.training import build_model, compilation, compile_backbone, restore_backbone

DEMO = dataclasses.replace(RECIPES["demo"].recipe, image_size=16, batch_size=4)
ALONE = SimpleNamespace(num_processes=1, device=torch.device("cpu"), mixed_precision="no")
HOURS = 10**9  # steps


@pytest.fixture
def method():
    torch.manual_seed(0)
    return create_method("vi_simsiam", build_model(DEMO), **DEMO.method.method_args()).train()


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that keeps the call as it is, and counts: the real one takes a minute."""
    compiled = []

    def keep(call, *arguments, **keywords):
        compiled.append(call)
        return call

    monkeypatch.setattr(torch, "compile", keep)
    return compiled


@pytest.fixture
def trial(monkeypatch):
    """trial(plain, compiled, compiling) sets what the trial finds."""

    def trial(plain, compiled, compiling=10.0):
        choice = "compiled" if compiled * 1.1 < plain else "plain"
        found = Trial(choice, {"plain": plain, "compiled": compiled}, {})
        monkeypatch.setattr(compilation, "_try", lambda *_: (found, compiling))

    return trial


def compile_with(method, steps=HOURS, processes=ALONE, **changes):
    return compile_backbone(dataclasses.replace(DEMO, **changes), method, steps, processes)


def test_off(method, compiler):
    assert compile_with(method, compile="off") is None
    assert compiler == []


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 2560},  # the demo
        {"max_minutes": 29.0},
        {"dtype": "float64"},
        {"processes": SimpleNamespace(**{**vars(ALONE), "num_processes": 2})},
    ],
)
def test_auto_does_not_even_try(method, compiler, options):
    assert compile_with(method, **options) is None
    assert compiler == []


@pytest.mark.parametrize(
    "plain, compiled, compiling, used",
    [
        (0.2, 0.1, 60.0, True),
        (0.2, 0.19, 60.0, False),  # within the margin
        (0.2, 0.4, 60.0, False),
        (0.2, 0.1, 1e9, False),  # compiling takes longer than it saves
    ],
)
def test_auto_takes_what_pays(method, compiler, trial, plain, compiled, compiling, used):
    trial(plain, compiled, compiling)
    line = compile_with(method, steps=10**6 * 5)
    assert line.startswith(f"compile: {'on' if used else 'off'} ({plain / compiled:.2f} times as fast")
    assert compilation.is_compiled(method) is used
    assert len(compiler) == used


def test_names_stay_and_it_can_be_undone(method, compiler, trial):
    trial(0.1, 0.2)
    before = list(method.state_dict())
    assert compile_with(method, compile="on").startswith("compile: on (0.50 times as fast")
    assert compilation.is_compiled(method)
    assert list(method.state_dict()) == before
    assert isinstance(method.model, type(build_model(DEMO)))
    restore_backbone(method)
    assert not compilation.is_compiled(method)
    restore_backbone(method)  # of what is not compiled: nothing happens


def test_the_trial_itself(method, compiler):
    """With a compiler that does nothing the two are about equal, and the method is as it was."""
    before = {k: v.clone() for k, v in method.state_dict().items()}
    found, seconds = compilation._try(DEMO, method, ALONE)
    assert found.seconds.keys() == {"plain", "compiled"}
    assert seconds > 0
    assert len(compiler) == 1
    assert not compilation.is_compiled(method)
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())


def test_a_failing_compiler_is_one_line(method, monkeypatch):
    def fail(call, *arguments, **keywords):
        def raising(*_):
            raise RuntimeError("backend='inductor' raised:\n\nRuntimeError: no C++ compiler\nmore")

        return raising

    monkeypatch.setattr(torch, "compile", fail)
    assert compile_with(method, compile="on") == "compile: off (RuntimeError: no C++ compiler)"
    assert not compilation.is_compiled(method)
