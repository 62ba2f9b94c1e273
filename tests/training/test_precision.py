"""Who decides on the precision, and that the trial leaves no trace."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState

from vissl_zoo.methods import create_method
from vissl_zoo.recipes import RECIPES
from vissl_zoo.speed import Trial
from vissl_zoo.training import build_model, choose_precision, precision

RECIPE = dataclasses.replace(RECIPES["demo"].recipe, image_size=16, batch_size=8, output_dir="nowhere")
DINO = dataclasses.replace(
    RECIPES["dino_resnet18_cifar10"].recipe, model="dino", backbone="test_resnet", image_size=16, batch_size=8
)


@pytest.fixture
def processes():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield PartialState(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


def method_of(recipe):
    torch.manual_seed(0)
    return create_method(recipe.method.name, build_model(recipe), **recipe.method.method_args()).train()


@pytest.fixture
def no_trial(monkeypatch):
    def refuse(*_):
        raise AssertionError("there was a trial")

    monkeypatch.setattr(precision, "_try", refuse)


def choose(processes, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    return choose_precision(recipe, None, processes)


@pytest.mark.usefixtures("no_trial")
class TestWithoutATrial:
    @pytest.mark.parametrize("flag", ["no", "bf16", "fp16"])
    def test_a_flag_decides(self, processes, monkeypatch, flag):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
        assert choose(processes, mixed_precision=flag).name == flag

    def test_then_what_accelerate_was_told(self, processes, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        found = choose(processes)
        assert found.describe("float32") == "precision: bf16 (as accelerate was told)"

    def test_float64_is_for_exact_comparisons(self, processes):
        assert choose(processes, dtype="float64").describe("float64") == "precision: float64 (--dtype)"

    @pytest.mark.parametrize("stored", ["no", "bf16"])
    def test_resuming_goes_on_as_it_began(self, processes, tmp_path, stored):
        (tmp_path / "recipe.json").write_text(json.dumps({"mixed_precision": stored}))
        found = choose(processes, resume=True, output_dir=str(tmp_path))
        assert (found.name, found.reason) == (stored, "as the run began")

    def test_resuming_what_is_not_there_is_refused_elsewhere(self, processes, tmp_path):
        assert choose(processes, resume=True, output_dir=str(tmp_path)).name == "no"


def test_no_is_what_accelerate_launch_says_by_itself(processes, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setattr(precision, "_try", lambda *_: precision.Precision("bf16", "tried"))
    assert choose(processes).reason == "tried"


@pytest.mark.parametrize(
    "seconds, failures, line",
    [
        ({"no": 2.1, "bf16": 1.0}, {}, "precision: bf16 (2.1 times float32 in a trial)"),
        ({"no": 1.0, "bf16": 1.25}, {}, "precision: float32 (bf16 is 0.8 times float32 in a trial)"),
        ({"no": 1.0}, {"bf16": "no kernel"}, "precision: float32 (bf16 failed in a trial: no kernel)"),
    ],
)
def test_the_trial_decides_and_is_told(processes, monkeypatch, seconds, failures, line):
    choice = min(seconds, key=seconds.__getitem__)
    monkeypatch.setattr(precision, "run_trial", lambda *_, **__: Trial(choice, seconds, failures))
    assert choose_precision(RECIPE, method_of(RECIPE), processes).describe("float32") == line


@pytest.mark.parametrize("recipe", [RECIPE, DINO], ids=["vi_simsiam", "dino"])
def test_a_trial_leaves_no_trace(processes, monkeypatch, recipe):
    """Weights, running statistics, gradients, DINO's sums and random numbers are as before."""
    monkeypatch.setattr(precision, "SECONDS", 0.1)
    method = method_of(recipe)
    before, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    found = choose_precision(recipe, method, processes)
    assert found.name in ("no", "bf16")
    assert "in a trial" in found.reason
    after = method.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in method.parameters())
    assert getattr(method, "_logit_count", 0) == 0


def test_a_batch_that_does_not_fit_is_halved():
    tried = []

    def trial(batch, repeats):
        tried.append(batch)
        if batch > 20:
            raise torch.OutOfMemoryError("out of memory")
        return "found"

    assert precision._within_memory(trial, 64, 3) == "found"
    assert tried == [64, 32, 16]


def test_large_images_get_a_small_batch(processes, monkeypatch):
    """A trial of many images that takes a second each stays at the least that it can be."""
    batches = []

    def slow(ways, *, repeats, device):
        batches.append(ways["no"].__closure__[-1].cell_contents[0].shape[0])
        return Trial("no", {"no": 8.0, "bf16": 8.0}, {})

    monkeypatch.setattr(precision, "run_trial", slow)
    recipe = dataclasses.replace(RECIPE, batch_size=64)
    choose_precision(recipe, method_of(recipe), processes)
    assert batches == [8, 8]
    monkeypatch.setattr(precision, "SECONDS", 64 / 8 * precision.PASSES * 16.0)
    choose_precision(recipe, method_of(recipe), processes)
    assert batches[2:] == [8, 64]


@pytest.mark.parametrize("seconds, repeats", [(0.01, [1, 7]), (0.5, [1, 4]), (60.0, [1, 1])])
def test_an_accelerator_is_tried_with_its_whole_batch(processes, monkeypatch, seconds, repeats):
    """And as often as the time allows."""
    seen = []

    def slow(ways, *, repeats, device):
        views = next(c.cell_contents for c in ways["no"].__closure__ if isinstance(c.cell_contents, list))
        seen.append((len(views[0]), repeats))
        return Trial("bf16", {"no": seconds, "bf16": seconds}, {})

    monkeypatch.setattr(precision, "run_trial", slow)
    recipe = dataclasses.replace(RECIPE, batch_size=64)
    method = method_of(recipe)
    accelerator = SimpleNamespace(num_processes=1, device=torch.device("meta"))
    assert choose_precision(recipe, method, accelerator).name == "bf16"
    assert seen == [(64, n) for n in repeats]
