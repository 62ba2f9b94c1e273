"""Which precision a run trains in: as it was told, as it began, or what a short trial finds to be fastest here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from vissl_zoo.methods import Method
from vissl_zoo.recipes.base import Recipe
from vissl_zoo.speed import run_trial
from vissl_zoo.training.step import forward_backward, noise_views, spare_copy

SECONDS = 4.0  # that a trial may take, about
FIRST_BATCH = 8  # images of the first, rough trial, which says how many the second can have
PASSES = 8  # of each candidate: one to warm up, seven for a median that a busy moment does not move


@dataclass(frozen=True)
class Precision:
    """The precision of the backbone in training; κ and the loss have float32 or better in any case.

    Attributes:
        name: "no" (float32, or float64 by --dtype), "fp16" or "bf16".
        reason: why, for the user.
    """

    name: str
    reason: str

    def describe(self, dtype: str) -> str:
        """One line for the user; `dtype` is that of the weights."""
        return f"precision: {dtype if self.name == 'no' else self.name} ({self.reason})"


def choose_precision(recipe: Recipe, method: Method, processes: PartialState) -> Precision:
    """The precision to train in.

    A flag decides, then what accelerate was told ("no" is what `accelerate launch` says when nobody told it
    anything), then the run that is resumed, then a trial of float32 and bfloat16 with a copy of the method:
    bfloat16 must be a tenth faster. With several processes all take part and the first one's answer is everybody's.

    Args:
        recipe: the recipe, whose batch divides among the processes.
        method: on its device, as it will be trained. Nothing of it changes, nor do the random numbers.
        processes: accelerate's.
    """
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower()
    if recipe.mixed_precision != "auto":
        return Precision(recipe.mixed_precision, "--mixed-precision")
    if told not in ("", "no"):
        return Precision(told, "as accelerate was told")
    if recipe.resume:
        return Precision(_stored(recipe), "as the run began")
    if recipe.dtype != "float32":
        return Precision("no", "--dtype")
    return _broadcast(_try(recipe, method, processes))


def _try(recipe: Recipe, method: Method, processes: PartialState) -> Precision:
    """Time float32 and bf16 for some seconds.

    On a CPU with as many images of the process's share as that allows. Of few images most of an accelerator's time
    would go into starting its kernels: there with the whole share, as often as the seconds allow.
    """
    share = recipe.batch_size // processes.num_processes
    on_cpu = processes.device.type == "cpu"
    batch = min(FIRST_BATCH, share) if on_cpu else share
    with spare_copy(method) as spare:

        def trial(batch: int, repeats: int):
            views = noise_views(recipe, batch, processes.device)
            ways = {name: forward_backward(spare, views, name) for name in ("no", "bf16")}
            return run_trial(ways, repeats=repeats, device=processes.device)

        found = _within_memory(trial, batch, 1)
        if not found.failures:
            passes = SECONDS / sum(found.seconds.values())  # of each precision over the batch
            if on_cpu:
                batch = _broadcast(max(batch, min(share, int(batch * passes / PASSES))))
            repeats = PASSES - 1 if on_cpu else _broadcast(max(1, min(PASSES - 1, int(passes))))
            found = _within_memory(trial, batch, repeats)
    if found.failures:
        return Precision("no", f"bf16 failed in a trial: {found.failures['bf16']}")
    times = found.seconds["no"] / found.seconds["bf16"]
    return Precision(
        found.choice, f"{'bf16 is ' * (found.choice == 'no')}{times:.2g} times float32 in a trial"
    )


def _within_memory(trial, batch: int, repeats: int):
    """The trial at `batch` images or, where float32 needs more memory than there is, at fewer."""
    while True:
        try:
            return trial(batch, repeats)
        except torch.OutOfMemoryError:
            if batch <= 2:
                raise
            batch //= 2


def _stored(recipe: Recipe) -> str:
    """The precision of the run to be resumed; if it cannot be read, `Run` will say so."""
    try:
        return json.loads((Path(recipe.output_dir) / "recipe.json").read_text())["mixed_precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no"


def _broadcast(answer):
    """The first process's answer."""
    return broadcast_object_list([answer])[0]
