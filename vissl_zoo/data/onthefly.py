"""Images decoded while they are asked for, by worker processes."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from vissl_zoo.data.base import Batch, ImageStore
from vissl_zoo.data.canvas import read_to_canvas
from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.table import ImageTable
from vissl_zoo.data.tally import BadImageTally

_FEW = 100  # images read before the fraction of corrupt ones is judged, unless there are no more
_MOST_SKIPPED = 100  # corrupt images in a row after which no replacement is looked for any further


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
