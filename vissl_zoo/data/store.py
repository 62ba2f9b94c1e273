"""A table's images as batches by position: held in memory or in a mapped file, or decoded when asked for."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.utils.data import DataLoader

from vissl_zoo.data.canvas import Batch, Decoded, canvas_size, decode_all, read_to_canvas
from vissl_zoo.data.canvas_cache import map_canvases
from vissl_zoo.data.decode import BadImage, default_workers
from vissl_zoo.data.table import ImageTable
from vissl_zoo.data.tally import BadImageTally

_AHEAD = 4  # batches gathered before they are asked for, where gathering may wait for a disk
_DEVICE_SHARE = 0.5  # of an accelerator's free memory, the most that canvases may take
_JUDGED = 100  # images read before the fraction of corrupt ones is judged, unless there are no more
_MOST_SKIPPED = 100  # corrupt images in a row after which no replacement is looked for any further


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
) -> "ImageStore":
    """Open the images of `table` for views of `image_size` pixels (see `canvas_size`).

    Args:
        workers: threads that decode into memory or a map, or processes that decode on the fly (0: none beside this
            one); by default see `default_workers`.
        memory_limit: bytes; canvases that need more are not held in memory.
        disk_limit: bytes; canvases that then need no more than this are decoded once into a file of the cache,
            see `map_canvases`. Others are decoded on the fly.
        max_bad_fraction: corrupt images tolerated, as a fraction of those read: they are left out and named.
        progress: show a bar on stderr while decoding into memory or a map.
        rows: int64 (N,), the rows of the table to take; by default all.
        device: where batches will be used; held canvases move there if they take no more than half of its free memory.

    Raises:
        UserError: more corrupt images than tolerated, or not one that can be read.
        ValueError: `rows` is not a vector or empty.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    if rows.ndim != 1 or not len(rows):
        raise ValueError(f"rows must be a non-empty vector, not of shape {rows.shape}")
    workers = default_workers() if workers is None else workers
    canvas = canvas_size(table, image_size)
    tally = BadImageTally(table.path, max_bad_fraction)
    shape = (len(rows), 3, *canvas)
    options = {"workers": workers, "progress": progress}
    if np.prod(shape) <= memory_limit:
        return HeldStore(rows, tally, decode_all(table, rows, np.empty(shape, np.uint8), **options), device)
    mapped = None
    if np.prod(shape) <= disk_limit:
        mapped = map_canvases(table, rows, canvas, disk_limit=disk_limit, **options)
    if mapped is not None:
        return HeldStore(rows, tally, mapped, device, ahead=_AHEAD)
    return OnTheFlyStore(table, rows, canvas, tally, workers)


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

        Of held canvases that is all of them, and none has a position; on the fly they are found while
        reading and keep their positions, where another image stands in.
        """
        return self._tally.images

    @abstractmethod
    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield one batch for each array of positions (B,), in the given order.

        On the fly and from a map, positions are drawn from `index_batches` ahead of the batches yielded. On the
        fly a corrupt image is replaced by the next readable one of the store, whose position `Batch.indices`
        then gives; UserError when too many are corrupt.
        """


class HeldStore(ImageStore):
    """Images decoded once and held: in memory, in a mapped file, or on an accelerator.

    Canvases that are small for `device` move there, and batches are gathered there. Otherwise CUDA gets them from
    page-locked memory, gathered `ahead` of the step that takes them, as from a map: what the system has dropped from
    memory is then read from the disk while the model computes.
    """

    def __init__(
        self,
        rows: np.ndarray,
        tally: BadImageTally,
        decoded: Decoded,
        device: torch.device | str = "cpu",
        ahead: int = 0,
    ):
        good = np.ones(len(rows), dtype=bool)
        for slot, error in decoded.failed:
            good[slot] = False
            tally.add(error)
        tally.check(len(rows))
        tally.report(len(rows))
        super().__init__(decoded.pixels.shape[2:], rows[good], tally)
        # Position -> slot: closing the gaps instead would copy all pixels.
        self._slots = torch.from_numpy(np.flatnonzero(good))
        self._pixels, self._sizes = torch.from_numpy(decoded.pixels), torch.from_numpy(decoded.sizes)
        self._device, self.ahead = torch.device(device), ahead
        if self._device.type != "cpu" and self._pixels.nbytes <= _DEVICE_SHARE * free_memory(self._device):
            self._pixels, self.ahead = self._pixels.to(self._device), 0
        elif self._device.type == "cuda":
            self.ahead = _AHEAD

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """See `ImageStore.batches`."""
        if not self.ahead:
            yield from map(self._gather, index_batches)
            return
        gathered = deque()
        pool = ThreadPoolExecutor(2, "gather-batches")
        try:
            for indices in index_batches:
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


class OnTheFlyStore(ImageStore):
    """Images decoded by worker processes, a few batches ahead of those that are asked for."""

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray,
        canvas: tuple[int, int],
        tally: BadImageTally,
        workers: int,
    ):
        super().__init__(canvas, rows, tally)
        self._decoder, self._workers = _Decoder(table, rows, canvas), workers
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
                self._tally.check(self._seen.sum(), at_least=min(_JUDGED, len(self)))
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


def free_memory(device: torch.device) -> int:
    """Bytes free on an accelerator; 0 where torch cannot tell."""
    if device.type not in ("cuda", "xpu"):
        return 0
    return getattr(torch, device.type).mem_get_info(device)[0]
