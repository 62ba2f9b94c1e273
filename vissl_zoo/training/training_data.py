"""The images of a run: opened, decoded, and rendered as the views of each batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from vissl_zoo.data import Batch, ImageStore, ImageStream, ImageTable, open_images, open_store, open_stream
from vissl_zoo.evaluation import open_measured
from vissl_zoo.recipes import Recipe
from vissl_zoo.training.launch import ending_together
from vissl_zoo.training.run_folder import Run
from vissl_zoo.training.schedule import Plan, index_batches
from vissl_zoo.views import ViewPipeline


def open_table(recipe: Recipe, accelerator: Accelerator) -> ImageTable | None:
    """Open the training images, none decoded yet; a batch too large or an unfit report split is refused here.

    None for a stream: it has no rows to name, and to report on it would be to download it.
    """
    data = recipe.data
    if data.streaming:
        Plan.of(recipe, None, accelerator)
        return None
    columns = {"image_column": data.image_column, "label_column": data.label_column}

    def opened() -> ImageTable:
        table = open_images(data.path, split=data.split, **columns)
        if recipe.report:
            open_measured(table, data.eval_split, **columns)
        return table

    with ending_together(accelerator):
        if accelerator.is_main_process:  # it fills the cache that the others read
            table = opened()
    if not accelerator.is_main_process:
        table = opened()
    Plan.of(recipe, len(table), accelerator)
    return table


def load_images(
    recipe: Recipe, table: ImageTable | None, accelerator: Accelerator
) -> ImageStore | ImageStream:
    """The training images as canvases, decoded once into memory if they fit, or read as a stream."""
    data, store = recipe.data, None
    if table is not None:
        store = open_store(
            table,
            recipe.image_size,
            workers=data.workers,
            memory_limit=int(data.memory_gib * 2**30),
            disk_limit=int(data.disk_gib * 2**30),
            device=accelerator.device,
            max_bad_fraction=data.max_bad_fraction,
            progress=accelerator.is_main_process,
        )
    if store is not None:
        return store
    return open_stream(
        data.path if table is None else table,
        recipe.image_size,
        split=data.split,
        image_column=data.image_column,
        buffer=data.buffer,
        seed=recipe.seed,
        workers=data.workers,
        max_bad_fraction=data.max_bad_fraction,
    )


def read_views(run: Run, images: ImageStore | ImageStream, views: ViewPipeline) -> Iterator[list[Tensor]]:
    """The views of this process's share of every batch, from where the run stands to the end of its plan.

    Batches are counted over the whole run, and the views of one are drawn from its number.
    """
    plan, device, rank = run.plan, run.accelerator.device, run.accelerator.process_index
    for number, batch in enumerate(_read_batches(run, images), start=run.step * plan.accumulation):
        pixels = to_device(batch.images, device)
        yield views(pixels, batch.sizes, number, start=rank * len(pixels), global_batch=plan.batch_size)


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Images (B, 3, H, W) on the device, without making the host wait: what CUDA copies must be pinned for that."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory()
    return images.to(device, non_blocking=True)


def _read_batches(run: Run, images: ImageStore | ImageStream) -> Iterator[Batch]:
    plan = run.plan
    where = {"rank": run.accelerator.process_index, "processes": run.accelerator.num_processes}
    if not isinstance(images, ImageStream):
        return images.batches(index_batches(plan, seed=run.recipe.seed, start=run.step, **where))
    start, stop = run.step * plan.accumulation, plan.steps * plan.accumulation
    endless = images.batches(plan.batch_size, start=start, **where)
    return itertools.islice(endless, stop - start)
