"""Which images a step sees and at what learning rate: both follow from the step alone, so resuming is exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator
from torch.optim import Optimizer

from vissl_zoo.errors import UserError
from vissl_zoo.recipes import Recipe


@dataclass(frozen=True)
class Plan:
    """How long a run is.

    A *step* moves the optimizer once; it consists of `gradient_accumulation` batches of `batch_size` images
    over all processes. `images` is None for a stream, whose length nobody knows beforehand.
    """

    images: int | None
    batch_size: int
    accumulation: int
    steps: int

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps in one pass over the images; what does not fill a batch waits for the next pass's shuffle."""
        return None if self.images is None else self.images // self.batch_size // self.accumulation

    def epoch(self, step: int) -> float | None:
        """Passes over the images done after so many steps, or None where a pass has no known end."""
        return None if self.steps_per_epoch is None else step / self.steps_per_epoch

    @classmethod
    def of(cls, recipe: Recipe, images: int | None, accelerator: Accelerator) -> Plan:
        """The plan of a recipe on so many images (None: a stream of unknown length) and accelerate's processes.

        Raises:
            UserError: the batch is larger than the data set or does not divide among the processes, or the recipe
                counts in epochs where a pass has no known end.
        """
        processes = accelerator.num_processes
        if images is None and recipe.warmup_epochs > 0:
            raise UserError(
                "--warmup-epochs must be 0 with --data.streaming: nobody knows how long an epoch is"
            )
        if images is not None and recipe.batch_size > images:
            raise UserError(
                f"--batch-size {recipe.batch_size} is larger than the data set ({images} images in "
                f"{recipe.data.path}); try --batch-size {max(2, images // 2)}"
            )
        if recipe.batch_size % processes:
            raise UserError(f"--batch-size {recipe.batch_size} does not divide among {processes} processes")
        if images is not None and recipe.batch_size * recipe.gradient_accumulation > images:
            raise UserError(
                f"--gradient-accumulation {recipe.gradient_accumulation} makes a step of more images than the "
                f"data set has ({images} in {recipe.data.path})"
            )
        if recipe.batch_size // processes < 2:
            raise UserError(
                f"--batch-size {recipe.batch_size} leaves fewer than 2 images to each of {processes} processes"
            )
        per_epoch = cls(images, recipe.batch_size, recipe.gradient_accumulation, 0).steps_per_epoch
        steps = recipe.epochs * (per_epoch or 0) if recipe.max_steps is None else recipe.max_steps
        if recipe.profile and steps < 2:
            raise UserError("--profile needs at least 2 steps, and there is 1")
        return cls(images, recipe.batch_size, recipe.gradient_accumulation, steps)


def index_batches(plan: Plan, *, seed: int, start: int, rank: int, processes: int) -> Iterator[np.ndarray]:
    """This process's share of every batch from optimizer step `start` on, as positions (batch_size / processes,).

    Each pass over the images has its own order, drawn from (seed, pass); the batches of one process and of
    eight are the same, cut differently.
    """
    assert plan.images is not None, "a stream has an order of its own"
    batches_per_pass = plan.images // plan.batch_size
    share = plan.batch_size // processes
    current, order = -1, np.empty(0, dtype=np.int64)
    for batch in range(start * plan.accumulation, plan.steps * plan.accumulation):
        passed, position = divmod(batch, batches_per_pass)
        if passed != current:
            current, order = passed, np.random.default_rng([seed, passed]).permutation(plan.images)
        first = position * plan.batch_size + rank * share
        yield order[first : first + share]


def learning_rate(recipe: Recipe, plan: Plan, step: int, *, constant: bool = False) -> float:
    """The learning rate at an optimizer step: linear in the images per step, warmed up, then as scheduled.

    With `constant` it stays at its peak after the warm-up (--constant-predictor-lr).

    It follows from the step: a scheduler that is restored can be out of step with the weights.
    """
    peak = recipe.lr * plan.batch_size * plan.accumulation / recipe.lr_batch_size
    warmup = recipe.warmup_epochs * (plan.steps_per_epoch or 0)
    if step < warmup:
        return peak * (step + 1) / math.ceil(warmup)
    if constant or recipe.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, plan.steps - warmup)))


def set_learning_rate(recipe: Recipe, plan: Plan, step: int, optimizer: Optimizer) -> None:
    """Set every group's learning rate for this step; the first group's is the scheduled one."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(recipe, plan, step, constant=group["constant_lr"])
