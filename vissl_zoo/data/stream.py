"""Batches from data too large to hold, to download or to index: shuffled while they are read, on every process alike.

Every process walks the same shuffled rows and decodes only its own slots of each global batch. Handing each
process shards of its own would read every byte once, but shards differ in length: one process then runs dry
while the others wait for it for ever, and the batches depend on how many processes there are.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple, cast

import datasets
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node

from vissl_zoo.data.canvas import PROBES, Batch, choose_canvas, fit_to_canvas
from vissl_zoo.data.decode import (
    BadImage,
    BadImageTally,
    decode,
    default_workers,
    encoded_size,
    why_unreadable,
)
from vissl_zoo.data.sources import find_source, open_rows, parts_of, read_value
from vissl_zoo.data.table import ImageTable, split_name
from vissl_zoo.errors import UserError

_AHEAD = 4  # batches read and decoded before they are asked for
_SPARE = 8  # the last images of a global batch, the same on every process; they stand in for the corrupt ones
_OPEN = 8  # shards read in turns, so that the buffer mixes them
_CHUNK = 64  # rows read at a time
_TASK = 16  # images that a thread decodes at a time
_JUDGED = 100  # images read before the fraction of corrupt ones is judged, unless there are no more


def open_stream(
    images: str | os.PathLike | ImageTable,
    image_size: int,
    *,
    split: str = "train",
    image_column: str | None = None,
    buffer: int = 10_000,
    seed: int = 0,
    workers: int | None = None,
    max_bad_fraction: float = 0.01,
) -> "ImageStream":
    """Open images for views of `image_size` pixels (see `canvas_size`), of which the first 64 are read for that.

    Args:
        images: a table, or a path as for `open_images`. Hub data sets and parquet files at a path are read as they
            come. Of a table, of folders of images and of "shapes" all rows are known, so their shuffle is exact.
        split, image_column: of a path, as for `open_images`, but no part of a split.
        buffer: rows among which the next is drawn; each process holds them encoded, 10,000 of ImageNet in about
            1 GB. It should span several shards if each has few classes.
        workers: threads that decode; by default see `default_workers`.
        max_bad_fraction: how many images may be corrupt, judged by each process from its 100th image on.

    Raises:
        UserError: nothing is there, or no such split or column, or the data are empty or unreadable.
        ValueError: a number is out of range.
    """
    workers = default_workers() if workers is None else workers
    if buffer < 1 or seed < 0 or workers < 0:
        raise ValueError(f"buffer {buffer} must be positive, workers {workers} and seed {seed} not negative")
    options = (image_size, buffer, seed, max(1, workers), max_bad_fraction)
    if isinstance(images, ImageTable):
        return ImageStream(images.path, images.root, images.encoded.with_format("arrow"), *options)
    source = find_source(os.fspath(images))
    name, bounds = split_name(source.path, split)
    if bounds is not None:
        what = f'of data that are streamed there is no part, only "{name}"'
        raise UserError(f'{source.path}: "{split}": {what}')
    rows = open_rows(source, source.find_split(name), image_column)
    return ImageStream(source.path, source.root, rows, *options)


class _Row(NamedTuple):
    """An image that is not yet decoded."""

    position: int  # in the pass
    name: str  # what to call it
    value: dict | bytes | None  # what the data set holds of it


class _Image(NamedTuple):
    """A decoded image."""

    pixels: np.ndarray  # uint8 (3, H, W)
    size: tuple[int, int]  # original (height, width)
    position: int  # in the pass
    bad: list[BadImage]  # corrupt ones for which it stands in


class ImageStream:
    """Endless shuffled batches of one split. `open_stream` makes it.

    Every process reads the bytes of all images (of those that lie in files of their own, of its share) and
    decodes its share: with more processes decoding becomes faster, reading does not.

    Attributes:
        path: what was opened.
        canvas: (H, W) in pixels; every image comes at this size.
        length: images in a pass, None until one has been read to its end.
        bad: the corrupt images this process has met, each once; `row` is a digest, for few rows have numbers here.
    """

    def __init__(
        self,
        path: str,
        root: Path | None,
        rows: datasets.Dataset | datasets.IterableDataset,
        image_size: int,
        buffer: int,
        seed: int,
        workers: int,
        max_bad_fraction: float,
    ):
        self.path, self._root, self._rows = path, root, rows
        self._buffer, self._seed, self._workers = buffer, seed, workers
        self._tally = BadImageTally(path, max_bad_fraction)
        self.bad = self._tally.images
        self._met = 0  # images that this process has tried to decode
        self.length: int | None = len(rows) if isinstance(rows, datasets.Dataset) else None
        first = (_Row(0, "", value) for value in islice(self._values(rows.iter(PROBES), Event()), PROBES))
        self.canvas = choose_canvas(first, partial(self._open, encoded_size), image_size)

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("a stream whose rows are not known has no length until a pass has been read")
        return self.length

    def batches(
        self, batch_size: int, *, rank: int = 0, processes: int = 1, start: int = 0
    ) -> Iterator[Batch]:
        """This process's batch_size / processes images of every global batch from number `start` on, for ever.

        The global batches follow from the data, the buffer, the seed and `batch_size`, not from the processes.
        An image comes once in a pass; each pass has its own order, drawn from (seed, pass); what does not fill
        a batch at its end is left out. `Batch.indices` are positions within the pass. For a corrupt image one of
        the last few of its global batch stands in, whose position `Batch.indices` then gives; no other image
        moves. Nothing is decoded on the way to `start`, but rows are read: of one pass, or of two while `length`
        is None.

        Close the iterator when you leave it early, and its threads end at once.

        Raises:
            UserError: (while iterating) the data cannot be read or do not fill a batch, or too many are corrupt.
            ValueError: the arguments do not fit together.
        """
        if not 0 <= rank < processes or batch_size < 1 or batch_size % processes or start < 0:
            what = f"rank {rank} of {processes} processes"
            raise ValueError(f"{what} cannot share batches of {batch_size} from number {start} on")
        return self._batches(batch_size, rank, batch_size // processes, start)

    def _batches(self, batch_size: int, rank: int, share: int, start: int) -> Iterator[Batch]:
        closed = Event()
        groups = self._groups(batch_size, start, closed)
        decoders = ThreadPoolExecutor(self._workers, "stream-decode")
        # A task for each batch, not a thread that runs on: an iterator left unclosed must not keep the
        # interpreter from ending.
        reader = ThreadPoolExecutor(1, "stream-read")

        def read() -> tuple[int, list[Future]]:
            group = next(groups)
            mine = group[rank * share : (rank + 1) * share]
            chunks = (mine[i : i + _TASK] for i in range(0, share, _TASK))
            tasks = [decoders.submit(self._decode, chunk, group[-_SPARE:]) for chunk in chunks]
            return group[0].position, tasks

        ahead, before = deque(), -1
        try:
            ahead.extend(reader.submit(read) for _ in range(_AHEAD))
            while True:
                position, tasks = ahead.popleft().result()
                ahead.append(reader.submit(read))
                if position <= before:  # another pass
                    self._tally.report(self._total)
                before = position
                yield self._batch([image for task in tasks for image in task.result()])
        finally:
            closed.set()
            for pool in (reader, decoders):
                pool.shutdown(cancel_futures=True)
            groups.close()
            self._tally.report(self._total)

    def _groups(self, batch_size: int, start: int, closed: Event) -> Generator[list[_Row], None, None]:
        """The rows of every global batch from number `start` on, for ever."""
        number = 0
        while True:
            if self.length is not None:
                if self.length < batch_size:
                    size = f"the data set ({self.length} images)"
                    raise UserError(f"{self.path}: a batch of {batch_size} images is larger than {size}")
                passes, start = divmod(start, self.length // batch_size)
                number += passes
            with closing(self._walk(number, start * batch_size, closed)) as rows:
                while len(group := list(islice(rows, batch_size))) == batch_size:
                    yield group
            # `length` is known now. If `start` lies beyond it, the next turn goes to the pass that holds it.
            if start < cast(int, self.length) // batch_size:
                number, start = number + 1, 0

    def _walk(self, number: int, skip: int, closed: Event) -> Generator[_Row, None, None]:
        """The rows of pass `number` in its order, after the first `skip`."""
        rng = np.random.default_rng([self._seed, number])
        if isinstance(self._rows, datasets.Dataset):
            order = rng.permutation(len(self._rows))[skip:]
            tables = (self._rows[order[i : i + _CHUNK]] for i in range(0, len(order), _CHUNK))
            for place, value in enumerate(self._values(tables, closed)):
                yield _Row(skip + place, f"row {order[place]}", value)
            return
        shards = rng.permutation(self._rows.n_shards).tolist()
        opened = (split_dataset_by_node(self._rows, i, len(shards)).iter(_CHUNK) for i in shards)
        rows = self._values(_in_turns(opened, _OPEN), closed)
        position = -1
        for position, value in enumerate(_shuffled(rows, self._buffer, rng)):
            if position >= skip:
                yield _Row(position, f"image {position} of pass {number}", value)
        self.length = position + 1

    def _values(self, tables: Iterator, closed: Event) -> Iterator:
        """The values of Arrow tables of one column, until it is `closed`."""
        while not closed.is_set():
            try:
                table = next(tables, None)
            except Exception as error:  # whatever the network, the Hub or a damaged file comes up with
                raise UserError(f"{self.path}: the data cannot be read ({why_unreadable(error)})") from error
            if table is None:
                return
            yield from table.column(0).to_pylist()
        raise CancelledError

    def _decode(self, rows: list[_Row], spare: list[_Row]) -> list[_Image]:
        """Each row's image, or where it is corrupt one of the `spare` ones, begun at another for another row."""
        images = []
        for row in rows:
            turn, bad = row.position % len(spare), []
            for tried in (row, *spare[turn:], *spare[:turn]):
                try:
                    image, size = self._open(partial(decode, shape=self.canvas), tried)
                    images.append(_Image(fit_to_canvas(image, self.canvas), size, tried.position, bad))
                    break
                except BadImage as error:
                    bad.append(error)
            else:
                raise UserError(f"{self.path}: {bad[0]}; no image of its batch can stand in for it")
        return images

    def _open(self, how: Callable[..., Any], row: _Row) -> Any:
        content, path = parts_of(row.value)
        number = hash(content or path or row.name)  # the same in every pass
        return read_value(how, row.value, self._root, number, row.name)

    def _batch(self, images: list[_Image]) -> Batch:
        pixels, sizes, positions, bad = zip(*images, strict=True)
        for error in chain(*bad):
            self._tally.add(error)
        self._met += len(images)
        self._tally.check(self._total, at_least=min(_JUDGED, self.length or _JUDGED))
        return Batch(torch.from_numpy(np.stack(pixels)), torch.tensor(sizes), torch.tensor(positions))

    @property
    def _total(self) -> int:
        return self._met if self.length is None else min(self._met, self.length)


def _in_turns(sources: Iterator[Iterator], at_once: int) -> Iterator:
    """Items of all sources, one of each in turn, with `at_once` sources open at a time."""
    opened = deque(islice(sources, at_once))
    while opened:
        source = opened.popleft()
        try:
            yield next(source)
            opened.append(source)
        except StopIteration:
            opened.extend(islice(sources, 1))


def _shuffled(rows: Iterator, size: int, rng: np.random.Generator) -> Iterator:
    """The rows, each drawn from a buffer of `size` that takes one in for every one that leaves.

    `datasets`' own buffer is refilled by half at once: a long wait every few thousand images, which Ctrl-C does
    not end. Its order also differs between releases.
    """
    buffer = []
    for row in rows:
        if len(buffer) < size:
            buffer.append(row)
            continue
        place = int(rng.integers(size))
        yield buffer[place]
        buffer[place] = row
    rng.shuffle(buffer)
    yield from buffer
