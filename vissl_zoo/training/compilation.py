"""torch.compile for the backbone, where it pays for itself."""

from __future__ import annotations

import time

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from vissl_zoo.methods import Method
from vissl_zoo.recipes.base import Recipe
from vissl_zoo.speed import Trial, run_trial, synchronize
from vissl_zoo.training.step import forward_backward, noise_views, spare_copy

# A compile takes a minute or so and saves a tenth to a third: with less than this ahead not even a trial pays.
WORTH_A_TRIAL = 30 * 60.0
FIRST_BATCH = 8  # images of the pass that tells how long the plan is


def compile_backbone(recipe: Recipe, method: Method, steps: int, accelerator: Accelerator) -> str | None:
    """Compile the backbone of `method` in place if --compile says so; returns one line for the user, if any.

    `auto` compiles a copy first, and the backbone itself only if the rest of the plan saves more time by it than
    the compiling took. It leaves several processes alone: their collective operations inside the batch norms cut
    the graph, and one process that compiles again keeps all others waiting. Names in the state dict stay as they
    are; EMA teachers, which see no backward pass, are not compiled.

    Args:
        recipe: the recipe.
        method: on its device, before `accelerator.prepare`.
        steps: optimizer steps still to be done.
        accelerator: of the run.
    """
    if recipe.compile == "off":
        return None
    if recipe.compile == "auto":
        if accelerator.num_processes > 1 or recipe.dtype != "float32":
            return None
        if _seconds_ahead(recipe, method, steps, accelerator) < WORTH_A_TRIAL:
            return None
    found, compiling = _try(recipe, method, accelerator)
    if found.failures:
        return f"compile: off ({found.failures['compiled']})"
    saved = found.seconds["plain"] - found.seconds["compiled"]
    pays = found.choice == "compiled" and saved * steps * recipe.gradient_accumulation > compiling
    use = recipe.compile == "on" or pays
    if broadcast_object_list([use])[0]:
        method.model.compile()
    times = found.seconds["plain"] / found.seconds["compiled"]
    return f"compile: {'on' if use else 'off'} ({times:.2f} times as fast in a trial, compiled in {compiling:.0f} s)"


def restore_backbone(method: Method) -> None:
    """Undo `compile_backbone`: evaluation and export see other shapes and would compile again."""
    vars(method.model).pop(
        "_compiled_call_impl", None
    )  # `Module.compile` sets it and nothing public unsets it


def is_compiled(method: Method) -> bool:
    """Whether `compile_backbone` compiled it."""
    return vars(method.model).get("_compiled_call_impl") is not None


def _seconds_ahead(recipe: Recipe, method: Method, steps: int, accelerator: Accelerator) -> float:
    """How long the rest of the plan takes, about, judged by a few images; on an accelerator by a whole batch."""
    share = recipe.batch_size // accelerator.num_processes
    batch = min(FIRST_BATCH, share) if accelerator.device.type == "cpu" else share
    with spare_copy(method) as spare:
        views = noise_views(recipe, batch, accelerator.device)
        call = forward_backward(spare, views, accelerator.mixed_precision)
        seconds = run_trial({"plain": call}, repeats=1, device=accelerator.device).seconds["plain"]
    ahead = steps * recipe.gradient_accumulation * seconds * share / batch
    return ahead if recipe.max_minutes is None else min(ahead, 60 * recipe.max_minutes)


def _try(recipe: Recipe, method: Method, accelerator: Accelerator) -> tuple[Trial, float]:
    """Compare the copy with a compiled one at the full batch; returns also the seconds that compiling took."""
    share, device = recipe.batch_size // accelerator.num_processes, accelerator.device
    with spare_copy(method) as plain, spare_copy(method) as compiled:
        views = noise_views(recipe, share, device)
        precision = accelerator.mixed_precision
        compiled.model.compile()
        calls = {
            name: forward_backward(m, views, precision)
            for name, m in (("plain", plain), ("compiled", compiled))
        }
        synchronize(device)
        start = time.perf_counter()
        try:
            calls["compiled"]()
        except Exception as error:  # no C++ compiler, an operation that it does not know, …
            return Trial("plain", {}, {"compiled": _reason(error)}), 0.0
        synchronize(device)
        return run_trial(calls, device=device), time.perf_counter() - start


def _reason(error: Exception) -> str:
    """The line that tells what went wrong: torch puts the name of its backend above it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    while len(lines) > 1 and lines[0].endswith(":"):
        lines.pop(0)
    return lines[0] if lines else type(error).__name__
