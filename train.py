"""Train a self-supervised model that knows when it is unsure.

    accelerate launch train.py                                    # the demo: minutes on two CPU cores
    accelerate launch train.py vi_simsiam_resnet18_cifar10 --data.path uoft-cs/cifar10
    accelerate launch train.py RECIPE --help                      # every field of a recipe is a flag

A recipe says what to train; this file joins data, views, model and method, and reads from top to bottom.
"""

from __future__ import annotations

import copy
import os
import shlex
import sys
from collections.abc import Iterable

from vissl_zoo.cpu import spin_less

spin_less()  # before torch is imported

# isort: split
import torch
from accelerate.utils import set_seed

from vissl_zoo import training
from vissl_zoo.cli import program_arguments
from vissl_zoo.errors import DISK_FAILED, UserError
from vissl_zoo.file_lock import released_at_the_end
from vissl_zoo.methods import RECIPES, Method
from vissl_zoo.recipes import Recipe, parse


def train(recipe: Recipe, command: str) -> int:
    """Train a recipe, report on the model and export it; `command` is what was typed, for the model card.

    Returns the exit code: 0, or 128 and the number of the signal that ended the training.

    Raises:
        UserError: something in the recipe, the data or the output folder that the user can put right.
    """
    accelerator = training.start_accelerator(recipe)
    views = training.build_views(recipe)
    set_seed(recipe.seed)
    model = training.build_model(recipe)
    untrained = copy.deepcopy(model)
    method = training.build_method(recipe, model, accelerator.device)
    optimizer = training.build_optimizer(recipe, method, accelerator.mixed_precision)
    table = training.open_table(recipe, accelerator)
    run = training.Run(recipe, accelerator, command, table.fingerprint if table else "a stream")
    images = training.load_images(recipe, table, accelerator)
    run.start(training.Plan.of(recipe, len(images) if table else None, accelerator), method, optimizer)

    fit(run, training.read_views(run, images, views), method, optimizer)
    del images  # the report opens its own
    if run.stopped_by or not run.finished:
        accelerator.print(f"stopped at step {run.step} of {run.plan.steps}; --resume goes on from here")
    elif accelerator.is_main_process:  # the others are done: a barrier would time out on a long report
        training.finish(run, method, untrained, table)
    accelerator.end_training()
    return 128 + run.stopped_by if run.stopped_by else 0


def fit(
    run: training.Run,
    batches: Iterable[list[torch.Tensor]],
    method: Method,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Train from `run.step` to the end of the plan, or of --max-minutes.

    Args:
        run: of which the recipe, the plan and the accelerator are.
        batches: this process's share of every batch, as V tensors of views (B, 3, s, s).
        method: on its device.
        optimizer: of the method's parameters.
    """
    recipe, plan, accelerator = run.recipe, run.plan, run.accelerator
    rank, processes = accelerator.process_index, accelerator.num_processes
    wrapped, prepared = accelerator.prepare(method, optimizer)
    guard = training.GradientGuard(method, accelerator)
    with run.progress(method.row.method), training.profiled_steps(run) as profile_step:
        for number, views in enumerate(run.waits(batches)):
            if number % plan.accumulation == 0:
                method.on_step_start(run.step / plan.steps)
                training.set_learning_rate(recipe, plan, run.step, optimizer)
                torch.manual_seed(recipe.seed + 1_000_003 * (1 + run.step * processes + rank))  # for dropout
            with accelerator.accumulate(wrapped):
                objective = wrapped(views)
                accelerator.backward(objective.loss)
                if accelerator.sync_gradients and recipe.clip_gradient is not None:
                    accelerator.clip_grad_norm_(wrapped.parameters(), recipe.clip_gradient)
                moved = guard.step(prepared)
                prepared.zero_grad()
            if moved:
                method.on_step_end()
            if accelerator.sync_gradients:
                profile_step()
                if run.step_done(method, optimizer, objective):
                    break


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code, which is 2 after one line on stderr about bad input."""
    try:
        arguments = program_arguments() if arguments is None else arguments
        with released_at_the_end():
            command = shlex.join(["accelerate", "launch", "train.py", *arguments])
            return train(parse(arguments, RECIPES), command)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK_FAILED:
            raise
        rank = os.environ.get("RANK", "0")
        print(f"train.py{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted; --resume goes on from the last checkpoint, if any", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
