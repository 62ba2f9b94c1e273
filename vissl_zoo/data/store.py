"""A table's images decoded once and held, in memory or in a mapped file, and handed out as batches by position."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from vissl_zoo.data.canvas import Batch, Decoded, canvas_size, decode_all
from vissl_zoo.data.canvas_cache import map_canvases
from vissl_zoo.data.decode import BadImageTally, default_workers
from vissl_zoo.data.table import ImageTable

_AHEAD = 4  # batches gathered before they are asked for, where gathering may wait for a disk
_DEVICE_SHARE = 0.5  # of an accelerator's free memory, the most that canvases may take


def open_store(
    table: ImageTable,
    image_size: int,
    *,
    workers: int | None = None,
    memory_limit: int = 4 * 2**30,
    disk_limit: int = 0,
    max_bad_fraction: float = 0.01,
    progress: bool = True,
    device: torch.device | str = "cpu",
) -> "ImageStore | None":
    """Decode the images of `table` for views of `image_size` pixels (see `canvas_size`).

    None where neither memory nor the disk has room for them; `open_stream` then reads the table.

    Args:
        workers: threads that decode; by default see `default_workers`.
        memory_limit: bytes; canvases that need more are not held in memory.
        disk_limit: bytes; canvases that then need no more than this are decoded once into a file of the cache,
            see `map_canvases`.
        max_bad_fraction: corrupt images tolerated, as a fraction of those read: they are left out and named.
        progress: show a bar on stderr while decoding.
        device: where batches will be used; held canvases move there if they take no more than half of its free memory.

    Raises:
        UserError: more corrupt images than tolerated, or not one that can be read.
    """
    workers = default_workers() if workers is None else workers
    canvas = canvas_size(table, image_size)
    tally = BadImageTally(table.path, max_bad_fraction)
    shape = (len(table), 3, *canvas)
    options = {"workers": workers, "progress": progress}
    if np.prod(shape) <= memory_limit:
        return ImageStore(tally, decode_all(table, np.empty(shape, np.uint8), **options), device)
    mapped = map_canvases(table, canvas, disk_limit=disk_limit, **options)
    return None if mapped is None else ImageStore(tally, mapped, device, ahead=_AHEAD)


class ImageStore:
    """Images of a table decoded to one canvas size and held: in memory, in a mapped file, or on an accelerator.

    They go by position, 0 … len(store) - 1. `open_store` makes it.

    Attributes:
        canvas: (H, W) in pixels.
        rows: int64 (N,), the row of the table at each position; corrupt images have none.
        bad: the corrupt images.
        ahead: batches gathered before they are asked for: from a map, whose pages may have to come from a disk, and
            for a CUDA device on which the canvases do not lie.
    """

    def __init__(
        self,
        tally: BadImageTally,
        decoded: Decoded,
        device: torch.device | str = "cpu",
        ahead: int = 0,
    ):
        good = np.ones(len(decoded.sizes), dtype=bool)
        for error in decoded.failed:
            good[error.row] = False
            tally.add(error)
        tally.check(len(good))
        tally.report(len(good))
        self.canvas, self.rows, self.bad = decoded.pixels.shape[2:], np.flatnonzero(good), tally.images
        self._pixels, self._sizes = torch.from_numpy(decoded.pixels), torch.from_numpy(decoded.sizes)
        self._device, self.ahead = torch.device(device), ahead
        if self._device.type != "cpu" and self._pixels.nbytes <= _DEVICE_SHARE * free_memory(self._device):
            self._pixels, self.ahead = self._pixels.to(self._device), 0
        elif self._device.type == "cuda":
            self.ahead = _AHEAD

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """One batch for each array of positions (B,), in the given order.

        Where batches are gathered ahead, positions are drawn from `index_batches` ahead, too.
        """
        if not self.ahead:
            return map(self._gather, index_batches)
        return _in_advance(self._gather, index_batches, self.ahead, threads=2)

    def _gather(self, indices: np.ndarray) -> Batch:
        positions = torch.as_tensor(indices, dtype=torch.int64)
        slots = torch.from_numpy(self.rows)[positions]  # closing the gaps instead would copy all pixels
        sizes = self._sizes[slots]
        if self._pixels.device.type == "cuda":  # else the host would wait for the device at every batch
            slots = slots.pin_memory().to(self._pixels.device, non_blocking=True)
        # Not self._pixels[slots], which copies byte by byte on a CPU: a tenth to a twentieth of the speed.
        images = self._pixels.index_select(0, slots.to(self._pixels.device))
        if self._device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()
        return Batch(images, sizes, positions)


def decode_batches(
    table: ImageTable, canvas: tuple[int, int], row_batches: Iterable[np.ndarray], workers: int | None = None
) -> Iterator[Batch]:
    """One batch for each array of rows (B,) of a table, decoded while the one before is used: where no store has room.

    Raises:
        BadImage: (while iterating) a row cannot be read.
    """

    def decode(rows: np.ndarray) -> Batch:
        pixels = np.empty((len(rows), 3, *canvas), dtype=np.uint8)
        decoded = decode_all(table.select(rows), pixels, workers=workers or default_workers(), progress=False)
        if decoded.failed:
            raise decoded.failed[0]
        return Batch(torch.from_numpy(pixels), torch.from_numpy(decoded.sizes), torch.as_tensor(rows))

    return _in_advance(decode, row_batches, 2, threads=1)


def _in_advance(
    make: Callable[[np.ndarray], Batch], index_batches: Iterable[np.ndarray], ahead: int, threads: int
) -> Iterator[Batch]:
    """`make` of each, in order; up to `ahead` are begun before they are asked for."""
    begun, pool = deque(), ThreadPoolExecutor(threads, "make-batches")
    try:
        for indices in index_batches:
            begun.append(pool.submit(make, indices))
            if len(begun) == ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def free_memory(device: torch.device) -> int:
    """Bytes free on an accelerator; 0 where torch cannot tell."""
    if device.type not in ("cuda", "xpu"):
        return 0
    return getattr(torch, device.type).mem_get_info(device)[0]
