"""Train a self-supervised model that knows when it is unsure.

    accelerate launch train.py                                    # the demo: minutes on two CPU cores
    accelerate launch train.py vi_simsiam_resnet18_cifar10 --data.path uoft-cs/cifar10
    accelerate launch train.py RECIPE --help                      # every field of a recipe is a flag

A recipe says what to train; this file joins data, views, model and method, and reads from top to bottom.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import vissl_zoo  # noqa: F401  (before torch, whose threads then spin less long)

# isort: split
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from torch import nn
from tqdm.auto import tqdm

from vissl_zoo.cpu.allocator import keep_freed_memory
from vissl_zoo.cpu.small_maps import use_small_maps
from vissl_zoo.data import (
    BadImage,
    Batch,
    ImageStore,
    ImageStream,
    ImageTable,
    open_images,
    open_store,
    open_stream,
)
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.features import PHOTO_CROP
from vissl_zoo.evaluation.report import open_measured, write_report
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.methods import Method, create_method
from vissl_zoo.networks.normalization import synchronize_batch_norm
from vissl_zoo.recipes import Recipe, parse
from vissl_zoo.speed.clock import VIEWS
from vissl_zoo.training import (
    GradientGuard,
    Plan,
    Profiler,
    Run,
    build_model,
    build_optimizer,
    check_profile,
    choose_precision,
    compile_backbone,
    index_batches,
    learning_rate,
    restore_backbone,
    start_accelerator,
    start_processes,
    start_tracker,
    to_device,
)
from vissl_zoo.views import ViewPipeline


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code, which is 2 after one line on stderr about bad input."""
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        train(parse(arguments), shlex.join(["accelerate", "launch", "train.py", *arguments]))
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"train.py{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "train.py: interrupted; --resume goes on from the last checkpoint, if there is one",
            file=sys.stderr,
        )
        return 130
    return 0


def train(recipe: Recipe, command: str) -> None:
    """Train a recipe, report on the model and export it; `command` is what was typed, for the model card.

    Raises:
        UserError: something in the recipe, the data or the output folder that the user can put right.
    """
    processes = start_processes(recipe)
    if processes.device.type == "cpu":
        keep_freed_memory()
    views = build_views(recipe)
    set_seed(recipe.seed)
    model = build_model(recipe)
    untrained = copy.deepcopy(model)
    method = build_method(recipe, model, processes.device)
    table = open_table(recipe, processes)
    precision = choose_precision(recipe, method, processes)
    accelerator = start_accelerator(recipe, precision)
    optimizer = build_optimizer(recipe, method, precision.name)
    run = Run(recipe, accelerator, command, table.fingerprint if table else "a stream")
    start_tracker(recipe, accelerator)
    images = load_images(recipe, table, accelerator)
    plan = Plan.of(recipe, len(images) if table else None, accelerator.num_processes)
    check_profile(recipe, plan.steps)  # also before an earlier run is cleared away
    run.start(method, optimizer)
    accelerator.print(precision.describe(recipe.dtype))
    compiled = compile_backbone(recipe, method, plan.steps - run.step, accelerator)
    if compiled:
        accelerator.print(compiled)

    fit(recipe, plan, run, images, views, method, optimizer, accelerator)
    del images  # the report opens its own
    if run.step < plan.steps:
        accelerator.print(f"stopped at step {run.step} of {plan.steps}; --resume goes on from here")
    elif (
        accelerator.is_main_process
    ):  # the other processes are done: a barrier would time out on a long report
        restore_backbone(method)
        finish(recipe, run, method, untrained, table)
    accelerator.end_training()


def fit(
    recipe: Recipe,
    plan: Plan,
    run: Run,
    images: ImageStore | ImageStream,
    views: ViewPipeline,
    method: Method,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> None:
    """Train from `run.step` to the end of the plan, or of --max-minutes."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    wrapped, prepared = accelerator.prepare(method, optimizer)
    batches = run.clock.waits(read_batches(recipe, plan, run.step, images, rank, processes))
    profiler = Profiler(recipe, method, optimizer, run.clock, accelerator, plan.steps - run.step)
    guard = GradientGuard(method, accelerator)
    # Batches are counted over the whole run: the views of one are drawn from its number.
    with tqdm(
        total=plan.steps, initial=run.step, desc=method.row.method, unit="step", disable=rank > 0
    ) as bar:
        for number, batch in enumerate(batches, start=run.step * plan.accumulation):
            if number % plan.accumulation == 0:
                method.on_step_start(run.step / plan.steps)
                lr = set_learning_rate(recipe, plan, run.step, optimizer)
                torch.manual_seed(recipe.seed + 1_000_003 * (1 + run.step * processes + rank))  # for dropout
            with run.clock.part(VIEWS):
                pixels = to_device(batch.images, accelerator.device)
                x = views(pixels, batch.sizes, number, start=rank * len(pixels), global_batch=plan.batch_size)
            with accelerator.accumulate(wrapped):
                with run.clock.part("heads and loss"):  # the backbone's own share only a profile takes out
                    objective = wrapped(x)
                with run.clock.part("backward"):
                    accelerator.backward(objective.loss)
                with run.clock.part("optimizer"):
                    if accelerator.sync_gradients and recipe.clip_gradient is not None:
                        accelerator.clip_grad_norm_(wrapped.parameters(), recipe.clip_gradient)
                    taken = not accelerator.sync_gradients or guard.allows()
                    if taken:
                        prepared.step()
                    prepared.zero_grad()
            if not accelerator.sync_gradients:
                continue
            if taken and not prepared.step_was_skipped:  # as float16's loss scaling does on overflow
                method.on_step_end()
            run.step += 1
            bar.update()
            if run.step % recipe.log_every == 0 or run.step in (1, plan.steps):
                line = run.log(plan, method, objective, lr)
                speed = f"{line['images_per_second']:.0f} images/s, data {line['data_share']:.0%}"
                bar.set_postfix_str(f"loss {line['loss']:.3f}, κ {line['kappa_mean']:.4g}, {speed}")
            profile = profiler.step_done(x)
            if profile:
                tqdm.write(f"profile: {profile}; {run.folder / 'profile.png'}", file=sys.stderr)
            over = run.out_of_time
            if run.step % recipe.save_every == 0 or run.step == plan.steps or over:
                run.save(method, optimizer, objective)
            if over:
                break


def read_batches(
    recipe: Recipe, plan: Plan, step: int, images: ImageStore | ImageStream, rank: int, processes: int
) -> Iterator[Batch]:
    """This process's share of every batch from optimizer step `step` to the end of the plan."""
    if isinstance(images, ImageStore):
        shares = index_batches(plan, seed=recipe.seed, start=step, rank=rank, processes=processes)
        return images.batches(shares)
    start, stop = step * plan.accumulation, plan.steps * plan.accumulation
    endless = images.batches(plan.batch_size, rank=rank, processes=processes, start=start)
    return itertools.islice(endless, stop - start)


def finish(recipe: Recipe, run: Run, method: Method, untrained: nn.Module, table: ImageTable | None) -> None:
    """Export the trained model, measure it (unless --no-report), and print the summary."""
    model = method.exported_model().float().eval()
    describe_input(model, recipe, table)
    heads = {
        f"{n}.{k}": v for n, head in method.heads().items() for k, v in head.float().state_dict().items()
    }

    def export(metrics: dict | None) -> Path:
        record = Record(method.row.method, recipe.data.path, recipe.image_size, run.command)
        card = render_card(model, record, metrics=metrics)
        return export_model(model, run.folder / "export", metrics=metrics, heads=heads or None, readme=card)

    folder = export(None)  # before the report: whatever that may meet, the model is safe
    if recipe.report and table is None:
        print("\nno report: the data are a stream")
    elif recipe.report:
        report = write_report(
            run.folder / "report",
            model,
            untrained.to(next(model.parameters()).device).eval(),
            table,
            image_size=recipe.image_size,
            split=recipe.data.eval_split,
            columns=(recipe.data.image_column, recipe.data.label_column),
            limit=recipe.report_images,
            history=run.history(),
            diagnoses=run.diagnoses(),
            seconds=lambda: run.seconds,
            seed=recipe.seed,
            workers=recipe.data.workers,
            memory_limit=int(recipe.data.memory_gib * 2**30),
        )
        export(report.metrics)
        print(report.summary())
    print(f"export:  {folder}, loaded by timm.create_model('local-dir:{folder}', pretrained=True)")


def describe_input(model: nn.Module, recipe: Recipe, table: ImageTable | None) -> None:
    """Tell timm what the model was trained on, so that its own transforms give it that."""
    size = recipe.image_size
    # Images about as small as the views are taken whole, as `central_crop` does; of a photo the centre is taken.
    small = table is not None and max(a_size(table)) <= 1.5 * size
    crop = {"crop_pct": 1.0 if small else PHOTO_CROP, "interpolation": "bilinear", "pool_size": None}
    model.pretrained_cfg.update(input_size=(3, size, size), **crop)


def a_size(table: ImageTable) -> tuple[int, int]:
    """Height and width of the first image that can be read."""
    for row in range(len(table)):
        with contextlib.suppress(BadImage):
            return table.size(row)
    raise UserError(f"{table.path}: no image can be read")


def open_table(recipe: Recipe, processes: PartialState) -> ImageTable | None:
    """Open the training images, none decoded yet; a batch too large or an unfit report split is refused here.

    None for a stream: it has no rows to name, and to report on it would be to download it.
    """
    data = recipe.data
    if data.streaming:
        Plan.of(recipe, None, processes.num_processes)
        return None
    columns = {"image_column": data.image_column, "label_column": data.label_column}
    with processes.main_process_first():  # it fills the cache that the others read
        table = open_images(data.path, split=data.split, **columns)
        if recipe.report:
            open_measured(table, data.eval_split, **columns)
    Plan.of(recipe, len(table), processes.num_processes)
    return table


def load_images(
    recipe: Recipe, table: ImageTable | None, accelerator: Accelerator
) -> ImageStore | ImageStream:
    """The training images as canvases, decoded once into memory if they fit, or read as a stream."""
    data = recipe.data
    if table is None:
        return open_stream(
            data.path,
            recipe.image_size,
            split=data.split,
            image_column=data.image_column,
            buffer=data.buffer,
            seed=recipe.seed,
            workers=data.workers,
            max_bad_fraction=data.max_bad_fraction,
        )
    return open_store(
        table,
        recipe.image_size,
        workers=data.workers,
        memory_limit=int(data.memory_gib * 2**30),
        disk_limit=int(data.disk_gib * 2**30),
        device=accelerator.device,
        max_bad_fraction=data.max_bad_fraction,
        progress=accelerator.is_main_process,
    )


def build_views(recipe: Recipe) -> ViewPipeline:
    """The random views of the recipe."""
    options = {**dataclasses.asdict(recipe.views), "seed": recipe.seed, "dtype": getattr(torch, recipe.dtype)}
    try:
        # channels_last as the method is, see build_method
        return ViewPipeline(recipe.image_size, channels_last=True, **options)
    except ValueError as error:
        option, _, problem = str(error).partition(" ")
        raise UserError(f"--views.{option.replace('_', '-')} {problem}") from error


def build_method(recipe: Recipe, model: nn.Module, device: torch.device) -> Method:
    """The recipe's method around its model, on this process's device."""
    try:
        method = create_method(recipe.method.name, model, **recipe.method.method_args())
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--method: {str(error).splitlines()[0]}") from error
    if recipe.sync_batch_norm:
        method = synchronize_batch_norm(method, device)
    # channels_last: convolutions run up to three times as fast on a CPU, and in half precision on a GPU.
    method = use_small_maps(method).to(memory_format=torch.channels_last)
    return method.to(device, getattr(torch, recipe.dtype)).train()


def set_learning_rate(recipe: Recipe, plan: Plan, step: int, optimizer: torch.optim.Optimizer) -> float:
    """Set every group's learning rate for this step; returns the scheduled one."""
    scheduled = learning_rate(recipe, plan, step)
    for group in optimizer.param_groups:
        constant = group["constant_lr"]
        group["lr"] = learning_rate(recipe, plan, step, constant=True) if constant else scheduled
    return scheduled


if __name__ == "__main__":
    sys.exit(main())
