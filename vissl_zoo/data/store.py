"""A store for a table: in memory if it fits, else in a mapped file, else decoded as it is asked for."""

import numpy as np
import torch

from vissl_zoo.data.base import Batch, ImageStore
from vissl_zoo.data.canvas import canvas_size
from vissl_zoo.data.decode import default_workers
from vissl_zoo.data.held import HeldStore, MemoryStore
from vissl_zoo.data.mapped import open_mapped
from vissl_zoo.data.onthefly import StreamingStore
from vissl_zoo.data.table import ImageTable
from vissl_zoo.data.tally import BadImageTally

__all__ = ["Batch", "ImageStore", "MemoryStore", "StreamingStore", "open_store"]


def open_store(
    table: ImageTable,
    image_size: int,
    *,
    workers: int | None = None,
    memory_limit: int = 4 * 2**30,
    disk_limit: int = 0,
    max_bad_fraction: float = 0.01,
    progress: bool = True,
    rows: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    device_share: float = 0.5,
) -> ImageStore:
    """Open the images of `table` for views of `image_size` pixels (see `canvas_size`).

    Args:
        workers: threads that decode into memory or a map, or processes that decode on the fly (0: none beside this
            one); by default see `default_workers`.
        memory_limit: bytes; canvases that need more are not held in memory.
        disk_limit: bytes; canvases that then need no more than this are decoded once into a file of the cache,
            shared by the processes and later runs of this machine, if twice their size is free there. All such files
            together stay below it. Others are decoded on the fly.
        max_bad_fraction: corrupt images tolerated, as a fraction of those read: they are left out and named.
        progress: show a bar on stderr while decoding into memory or a map.
        rows: int64 (N,), the rows of the table to take; by default all.
        device: where batches will be used. Held canvases move to an accelerator if they are small (`device_share`);
            `Batch.images` then lies there.
        device_share: the most of the accelerator's free memory that canvases may take.

    Raises:
        UserError: more corrupt images than tolerated, or not one that can be read.
        ValueError: `rows` is not a vector or empty.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    if rows.ndim != 1 or not len(rows):
        raise ValueError(f"rows must be a non-empty vector, not of shape {rows.shape}")
    if workers is None:
        workers = default_workers()
    canvas = canvas_size(table, image_size)
    tally = BadImageTally(table.path, max_bad_fraction)
    need = len(rows) * 3 * canvas[0] * canvas[1]
    store: HeldStore | None = None
    if need <= memory_limit:
        store = MemoryStore(table, rows, canvas, tally, workers=workers, progress=progress)
    elif need <= disk_limit:
        limits = {"disk_limit": disk_limit, "workers": workers, "progress": progress}
        store = open_mapped(table, rows, canvas, tally, **limits)
    if store is not None:
        return store.to(device, share=device_share)
    return StreamingStore(table, rows, canvas, tally, workers=workers)
