"""--profile: watches some steps of a run and draws where their time goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from accelerate import Accelerator
from torch import Tensor

from vissl_zoo.errors import UserError
from vissl_zoo.methods import Method
from vissl_zoo.recipes.base import Recipe
from vissl_zoo.speed import StepClock, StepProfile, synchronize
from vissl_zoo.speed.profile import PARTS
from vissl_zoo.training.compilation import is_compiled

WARM_UP, MEASURED = 10, 20  # steps


class Profiler:
    """Measures steps 11 to 30 of a try (of a shorter one, what follows its first third), then gets out of the way.

    While it measures, an accelerator is waited for around every part, and each step is followed by the same step
    of a copy of the method on the views of the first: interleaved, a busy moment of the machine hits both alike.
    The copy exchanges no gradients with other processes.

    Args:
        recipe: the recipe.
        method: bare, after `accelerator.prepare`.
        optimizer: bare.
        clock: the clock that the loop's parts are counted by.
        accelerator: of the run.
        steps: optimizer steps that this try will do.

    Raises:
        UserError: there are fewer than two steps to do.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        optimizer: torch.optim.Optimizer,
        clock: StepClock,
        accelerator: Accelerator,
        steps: int,
    ):
        self._recipe, self._method, self._optimizer = recipe, method, optimizer
        self._clock, self._accelerator = clock, accelerator
        check_profile(recipe, steps)
        self._first = max(1, min(WARM_UP, steps // 3))
        self._last = min(self._first + MEASURED, steps)
        self._step = 0 if recipe.profile else self._last
        self._wholes: list[float] = []
        self._ready_made: list[float] = []

    def step_done(self, views: list[Tensor]) -> StepProfile | None:
        """Called after every step, with its views; returns and writes the profile when the last one is measured."""
        if self._step >= self._last:
            return None
        synchronize(self._clock.device)
        now = time.perf_counter()
        self._step += 1
        if self._step > self._first:
            self._wholes.append(now - self._resumed)
            self._ready_made.append(self._time(self._ready_made_step))
        elif self._step == self._first:
            self._start(views)
        if self._step == self._last:
            return self._finish()
        self._resumed = time.perf_counter()
        return None

    def _start(self, views: list[Tensor]) -> None:
        """Count from here on, exactly; the backbone is told from the heads by timing `Method.embed`."""
        self._clock.exact = True
        self._ready_made_step = bare_step(
            self._method, self._optimizer, views, self._recipe, self._accelerator
        )
        self._time(self._ready_made_step)  # to warm up
        embed = self._method.embed

        def timed_embed(*arguments: object) -> Tensor:
            with self._clock.part("backbone, forward"):
                return embed(*arguments)

        self._method.embed = timed_embed
        self._before = dict(self._clock.seconds)

    def _finish(self) -> StepProfile:
        """Make the loop as it was, and write what was found."""
        del self._method.embed, self._ready_made_step
        self._clock.exact = False
        steps = len(self._wholes)
        parts = {
            name: (self._clock.seconds[name] - self._before.get(name, 0.0)) / steps for name in PARTS[:-1]
        }
        parts["the rest"] = max(0.0, sum(self._wholes) / steps - sum(parts.values()))
        share = self._recipe.batch_size // self._accelerator.num_processes
        device = self._clock.device
        found = StepProfile(
            parts=parts,
            step_seconds=median(self._wholes),
            ready_made_seconds=median(self._ready_made),
            steps=steps,
            images=share * self._recipe.gradient_accumulation,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            precision=self._accelerator.mixed_precision,
        )
        if self._accelerator.is_main_process:
            found.write(Path(self._recipe.output_dir))
        return found

    def _time(self, call: Callable[[], None]) -> float:
        start = time.perf_counter()
        call()
        synchronize(self._clock.device)
        return time.perf_counter() - start


def check_profile(recipe: Recipe, steps: int) -> None:
    """Refuse to profile a single step, which would be all warm-up, or a run that is finished."""
    if recipe.profile and steps < 2:
        raise UserError(f"--profile needs at least 2 steps, and there {'is 1' if steps else 'is none left'}")


def bare_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    views: list[Tensor],
    recipe: Recipe,
    accelerator: Accelerator,
) -> Callable[[], None]:
    """A call that does one optimizer step on ready-made `views` with copies of the method and the optimizer.

    The method has been prepared, and so has its copy: autocast comes along.
    """
    spare = copy.deepcopy(method)
    if is_compiled(method):  # a copy is not
        spare.model.compile()
    namesake = dict(zip(method.parameters(), spare.parameters(), strict=True))
    groups = [{**g, "params": [namesake[p] for p in g["params"]]} for g in optimizer.param_groups]
    spare_optimizer = type(optimizer)(groups)

    def step() -> None:
        # torch's random numbers are seeded anew at every step of the training, which the copy's dropout leaves alone
        for _ in range(recipe.gradient_accumulation):
            spare(views).loss.backward()
        if recipe.clip_gradient is not None:
            torch.nn.utils.clip_grad_norm_(spare.parameters(), recipe.clip_gradient)
        spare_optimizer.step()
        spare_optimizer.zero_grad()

    return step
