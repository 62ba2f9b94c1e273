"""Batches of uint8 canvases: decoded once into memory when they fit, else decoded as they are asked for."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from vissl_zoo.data.canvas import canvas_size, read_to_canvas
from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.table import ImageTable
from vissl_zoo.data.tally import BadImageTally

_CHUNK = 64  # images that a thread decodes at a time
_FEW = 100  # images read on the fly before the fraction of corrupt ones is judged, unless there are no more
_MOST_SKIPPED = 100  # corrupt images in a row after which no replacement is looked for any further


class Batch(NamedTuple):
    """Images at canvas size, with what is needed to crop and to label them."""

    images: torch.Tensor  # uint8 (B, 3, H, W)
    sizes: (
        torch.Tensor
    )  # int64 (B, 2): the original (height, width) of each, before it was fitted to the canvas
    indices: torch.Tensor  # int64 (B,): positions in the store; `store.rows[indices]` are rows of the table


class ImageStore(ABC):
    """The images of a table at one canvas size, by position 0 … len(store) - 1. `open_store` makes it.

    Attributes:
        canvas: (H, W) in pixels.
        rows: int64 (N,), the row of the table at each position.
    """

    def __init__(self, canvas: tuple[int, int], rows: np.ndarray, tally: BadImageTally):
        self.canvas, self.rows, self._tally = canvas, rows, tally

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bad(self) -> list[BadImage]:
        """The corrupt images met so far, each once.

        In memory that is all of them, and none has a position; on the fly they are found while reading and
        keep their positions, where another image stands in.
        """
        return self._tally.images

    @abstractmethod
    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield one batch for each array of positions (B,), in the given order.

        On the fly, positions are drawn from `index_batches` ahead of the batches yielded, and a corrupt
        image is replaced by the next readable one of the store, whose position `Batch.indices` then gives;
        UserError when too many are corrupt.
        """


def open_store(
    table: ImageTable,
    image_size: int,
    *,
    workers: int | None = None,
    memory_limit: int = 4 * 2**30,
    max_bad_fraction: float = 0.01,
    progress: bool = True,
    rows: np.ndarray | None = None,
) -> ImageStore:
    """Open the images of `table` for views of `image_size` pixels (see `canvas_size`).

    Args:
        workers: threads that decode into memory, or processes that decode on the fly (0: none beside this
            one); by default one for each CPU that this process may use, 8 at most.
        memory_limit: bytes; data sets whose canvases need more are decoded on the fly.
        max_bad_fraction: corrupt images tolerated, as a fraction of those read: they are left out and named.
        progress: show a bar on stderr while decoding into memory.
        rows: int64 (N,), the rows of the table to take; by default all.

    Raises:
        UserError: more corrupt images than tolerated, or not one that can be read.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    if rows.ndim != 1 or not len(rows):
        raise ValueError(f"rows must be a non-empty vector, not of shape {rows.shape}")
    if workers is None:
        workers = min(8, _usable_cpus())
    canvas = canvas_size(table, image_size)
    tally = BadImageTally(table.path, max_bad_fraction)
    in_memory = len(rows) * 3 * canvas[0] * canvas[1] <= memory_limit
    if in_memory:
        return MemoryStore(table, rows, canvas, tally, workers=workers, progress=progress)
    return StreamingStore(table, rows, canvas, tally, workers=workers)


class MemoryStore(ImageStore):
    """All images decoded into one uint8 tensor (N, 3, H, W)."""

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray,
        canvas: tuple[int, int],
        tally: BadImageTally,
        *,
        workers: int,
        progress: bool,
    ):
        # Threads, not processes: on two CPUs, 50,000 JPEGs of 32 px took 5 s with 1, 2 or 4 threads (opening
        # a file is Python code under the interpreter's lock) and 6 to 7 s in 2 processes that send the
        # pixels; of larger images Pillow decodes several at once without the lock.
        pixels = np.empty((len(rows), 3, *canvas), dtype=np.uint8)
        sizes = np.empty((len(rows), 2), dtype=np.int64)

        def decode_chunk(start: int) -> list[tuple[int, BadImage]]:
            failed = []
            for slot in range(start, min(start + _CHUNK, len(rows))):
                try:
                    pixels[slot], sizes[slot] = read_to_canvas(table, rows[slot], canvas)
                except BadImage as error:
                    failed.append((slot, error))
            return failed

        good = np.ones(len(rows), dtype=bool)
        starts = range(0, len(rows), _CHUNK)
        bar = tqdm(total=len(rows), desc="decoding", unit=" images", disable=not progress)
        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for start, failed in zip(starts, pool.map(decode_chunk, starts), strict=True):
                for slot, error in failed:
                    good[slot] = False
                    tally.add(error)
                bar.update(min(_CHUNK, len(rows) - start))
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)  # on Ctrl-C, not after the whole data set
        tally.check(len(rows))
        tally.report(len(rows))
        super().__init__(canvas, rows[good], tally)
        self._pixels, self._sizes = torch.from_numpy(pixels), torch.from_numpy(sizes)
        # Position -> slot: closing the gaps instead would copy the whole tensor.
        self._slots = torch.from_numpy(np.flatnonzero(good))

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """See `ImageStore.batches`."""
        for indices in index_batches:
            indices = torch.as_tensor(indices, dtype=torch.int64)
            slots = self._slots[indices]
            yield Batch(self._pixels[slots], self._sizes[slots], indices)


class StreamingStore(ImageStore):
    """Images decoded on the fly by worker processes, a few batches ahead."""

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray,
        canvas: tuple[int, int],
        tally: BadImageTally,
        *,
        workers: int,
    ):
        super().__init__(canvas, rows, tally)
        self._decoder = _Decoder(table, rows, canvas)
        self._workers = workers
        self._seen = np.zeros(len(rows), dtype=bool)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """See `ImageStore.batches`. The worker processes live for one call: give all epochs to one call."""
        loader = DataLoader(
            self._decoder,
            batch_size=None,  # an index is a whole batch: the workers stack it, not the loader
            sampler=index_batches,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else each call would advance torch's global generator
        )
        try:
            for batch, failed in loader:
                for position, error in failed:
                    self._seen[position] = True
                    self._tally.add(error)
                if batch is None:
                    raise self._tally.error(self._seen.sum())
                self._seen[batch.indices] = True
                self._tally.check(self._seen.sum(), at_least=min(_FEW, len(self)))
                yield batch
        finally:
            self._tally.report(self._seen.sum())


class _Decoder(torch.utils.data.Dataset):
    """Maps an array of positions to (Batch, corrupt images met as (position, BadImage))."""

    def __init__(self, table: ImageTable, rows: np.ndarray, canvas: tuple[int, int]):
        self.table, self.rows, self.canvas = table, rows, canvas

    def __getitem__(self, indices: np.ndarray) -> tuple[Batch | None, list[tuple[int, BadImage]]]:
        indices = np.array(indices, dtype=np.int64)
        pixels = np.empty((len(indices), 3, *self.canvas), dtype=np.uint8)
        sizes = np.empty((len(indices), 2), dtype=np.int64)
        failed = []
        for slot in range(len(indices)):
            # The next image in the store, not another of the batch: there it would appear twice, which is
            # a false negative to a contrastive loss, and a batch of one has no other.
            for _ in range(_MOST_SKIPPED):
                try:
                    row = self.rows[indices[slot]]
                    pixels[slot], sizes[slot] = read_to_canvas(self.table, row, self.canvas)
                    break
                except BadImage as error:
                    failed.append((int(indices[slot]), error))
                    indices[slot] = (indices[slot] + 1) % len(self.rows)
            else:
                return None, failed
        return Batch(*map(torch.from_numpy, (pixels, sizes, indices))), failed


def _as_it_is(item: object) -> object:
    return item


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # a container or a job scheduler may lend fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
