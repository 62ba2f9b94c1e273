"""Images decoded once and held as canvases: in memory here, in a file (mapped.py), or on an accelerator."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from vissl_zoo.data.base import Batch, ImageStore
from vissl_zoo.data.canvas import read_to_canvas
from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.table import ImageTable
from vissl_zoo.data.tally import BadImageTally

_CHUNK = 64  # images that a thread decodes at a time
_AHEAD = 4  # batches gathered before they are asked for, where gathering may wait for a disk


class HeldStore(ImageStore):
    """Canvases in one uint8 tensor (M, 3, H, W), of which `good` (M,) bool says which could be read.

    `rows` (M,) int64 are their rows in the table and `sizes` (M, 2) int64 their original sizes.
    """

    ahead = 0  # batches gathered in threads before they are asked for

    def __init__(
        self,
        canvas: tuple[int, int],
        rows: np.ndarray,
        tally: BadImageTally,
        pixels: np.ndarray,
        sizes: np.ndarray,
        good: np.ndarray,
    ):
        super().__init__(canvas, rows[good], tally)
        self._pixels, self._sizes = torch.from_numpy(pixels), torch.from_numpy(sizes)
        # Position -> slot: closing the gaps instead would copy the whole tensor.
        self._slots = torch.from_numpy(np.flatnonzero(good))
        self._device = torch.device("cpu")

    def to(self, device: torch.device | str, *, share: float = 0.5) -> "HeldStore":
        """Use the store for work on `device`; returns the store itself.

        If the canvases take no more than `share` of the device's free memory they move there, and batches are
        gathered there. Otherwise batches are gathered in page-locked memory, ahead of the step that takes them (of
        CUDA; elsewhere nothing changes). `Batch.sizes` and `Batch.indices` stay on the CPU.
        """
        self._device = torch.device(device)
        if self._device.type != "cpu" and self._pixels.nbytes <= share * free_memory(self._device):
            self._pixels = self._pixels.to(self._device)
        elif self._device.type == "cuda":
            self.ahead = _AHEAD
        return self

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """See `ImageStore.batches`."""
        if not self.ahead or self._pixels.device.type != "cpu":
            yield from map(self._gather, index_batches)
            return
        positions, gathered = iter(index_batches), deque()
        pool = ThreadPoolExecutor(2, "gather-batches")
        try:
            for indices in positions:
                gathered.append(pool.submit(self._gather, indices))
                if len(gathered) == self.ahead:
                    yield gathered.popleft().result()
            while gathered:
                yield gathered.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _gather(self, indices: np.ndarray) -> Batch:
        indices = torch.as_tensor(indices, dtype=torch.int64)
        slots = self._slots[indices]
        sizes = self._sizes[slots]
        if self._pixels.device.type == "cuda":  # else the host would wait for the device at every batch
            slots = slots.pin_memory().to(self._pixels.device, non_blocking=True)
        # Not self._pixels[slots], which copies byte by byte on a CPU: a tenth to a twentieth of the speed.
        images = self._pixels.index_select(0, slots.to(self._pixels.device))
        if self._device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        return Batch(images, sizes, indices)


class MemoryStore(HeldStore):
    """All images decoded into memory."""

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
        pixels = np.empty((len(rows), 3, *canvas), dtype=np.uint8)
        sizes = np.zeros((len(rows), 2), dtype=np.int64)
        good = np.ones(len(rows), dtype=bool)
        for slot, error in decode_all(table, rows, pixels, sizes, workers=workers, progress=progress):
            good[slot] = False
            tally.add(error)
        tally.check(len(rows))
        tally.report(len(rows))
        super().__init__(canvas, rows, tally, pixels, sizes, good)


def decode_all(
    table: ImageTable,
    rows: np.ndarray,
    pixels: np.ndarray,
    sizes: np.ndarray,
    *,
    workers: int,
    progress: bool,
) -> list[tuple[int, BadImage]]:
    """Decode rows (M,) into pixels (M, 3, H, W) uint8 and sizes (M, 2); the corrupt ones as (slot, BadImage)."""
    canvas = pixels.shape[2], pixels.shape[3]

    # Threads, not processes: on two CPUs, 50,000 JPEGs of 32 px took 5 s with 1, 2 or 4 threads (opening
    # a file is Python code under the interpreter's lock) and 6 to 7 s in 2 processes that send the
    # pixels; of larger images Pillow decodes several at once without the lock.
    def decode_chunk(start: int) -> list[tuple[int, BadImage]]:
        failed = []
        for slot in range(start, min(start + _CHUNK, len(rows))):
            try:
                pixels[slot], sizes[slot] = read_to_canvas(table, rows[slot], canvas)
            except BadImage as error:
                failed.append((slot, error))
        return failed

    failed = []
    starts = range(0, len(rows), _CHUNK)
    bar = tqdm(total=len(rows), desc="decoding", unit=" images", disable=not progress)
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for start, some in zip(starts, pool.map(decode_chunk, starts), strict=True):
            failed += some
            bar.update(min(_CHUNK, len(rows) - start))
    finally:
        bar.close()
        pool.shutdown(cancel_futures=True)  # on Ctrl-C, not after the whole data set
    return failed


def free_memory(device: torch.device) -> int:
    """Bytes free on an accelerator; 0 where torch cannot tell."""
    if device.type not in ("cuda", "xpu"):
        return 0
    return getattr(torch, device.type).mem_get_info(device)[0]
