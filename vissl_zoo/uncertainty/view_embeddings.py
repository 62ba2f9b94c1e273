"""Embeddings of each image and of several augmented views of it, in memory or, where they are many, in a file."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any, cast

import numpy as np
from torch import nn

from vissl_zoo.data import BadImage, ImageTable, cache_folder
from vissl_zoo.data.decode import BadImageTally
from vissl_zoo.errors import UserError
from vissl_zoo.inference import central_crop, embed
from vissl_zoo.views import ViewPipeline

LARGEST = 1e30  # entry of an embedding; the head's first layer is divided by such entries, in float32
MEMORY_LIMIT = 4 * 2**30  # bytes; embeddings that need more lie on the disk


def embed_views(
    model: nn.Module,
    table: ImageTable,
    image_size: int,
    *,
    views: int,
    seed: int = 0,
    exact: bool = False,
    workers: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: str | None = None,
) -> np.ndarray:
    """Embeddings (N, 1 + V, F) float32 of every readable image of the table, in its order, and of V views of each.

    The views are SimSiam's augmentation, normalised as the model's own configuration says.

    Args:
        model: with a κ head, trained or not: its embedding is what that head reads.
        table: the images; those that cannot be read are left out, and named in the log.
        image_size: side of the views in pixels.
        views: V.
        seed: of the views.
        exact, workers, progress: as for `embed`.
        memory_limit: bytes above which the embeddings lie in a file that goes with them.

    Raises:
        UserError: an embedding is not finite, not one image can be read, or the disk has no room.
    """
    pipeline = view_pipeline(model, image_size, views, seed)
    tally = BadImageTally(table.path, 1.0)
    kept, count, broken = None, 0, 0
    options: dict[str, Any] = {"exact": exact, "workers": workers, "progress": progress}
    for batch in embed(model, table, image_size, views=pipeline, clean=True, **options):
        if kept is None:
            kept = _room((len(table), 1 + views, batch.embedding.shape[-1]), memory_limit)
        readable = batch.sizes[:, 0] > 0
        for place in np.flatnonzero(~readable):
            row = int(batch.rows[place])
            tally.add(BadImage(row, table.name(row), batch.errors[place] or ""))
        good = batch.embedding[:, readable]
        broken += int((~(np.abs(good) < LARGEST)).any(axis=(0, 2)).sum())  # NaN is not below it either
        kept[count : count + good.shape[1]] = good.swapaxes(0, 1)
        count += good.shape[1]
    tally.check(len(table))
    tally.report(len(table))
    if broken:
        raise UserError(
            f"the model gives an embedding that is not finite, or beyond {LARGEST:.0e}, for {broken} of "
            f"{count} images: no κ can be fitted to it"
        )
    return cast(np.ndarray, kept)[:count]  # a table has at least one row


def view_pipeline(model: nn.Module, image_size: int, views: int, seed: int) -> ViewPipeline:
    """SimSiam's augmentation, normalised as the model's own configuration says."""
    crop = central_crop(model, image_size)
    return ViewPipeline(image_size, standard=views, seed=seed, mean=crop.mean, std=crop.std)


def _room(shape: tuple[int, int, int], memory_limit: int) -> np.ndarray:
    needed = 4 * int(np.prod(shape, dtype=np.int64))
    if needed <= memory_limit:
        return np.empty(shape, dtype=np.float32)
    folder = cache_folder()  # not /tmp, which is memory on some machines
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if (
            free > needed
        ):  # a file with holes would be made all the same, and kill the process when it is filled
            with tempfile.TemporaryFile(dir=folder) as file:
                return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
    except OSError as error:
        raise UserError(f"the embeddings cannot be kept in {folder}: {error.strerror}") from error
    raise UserError(
        f"the embeddings need {needed / 2**30:.1f} GiB in {folder}, which has {free / 2**30:.1f}: take fewer views or "
        "images, or let VISSL_ZOO_CACHE name a folder with more room"
    )
