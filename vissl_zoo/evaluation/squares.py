"""The central squares of images, decoded by threads while the network works on those before.

The square is cut from the decoded image and resized straight to the network's size: one resampling, where a detour over
a square canvas of 1.5 times the size, as training and the augmentations need it, takes two. It shows what
`central_crop` shows of the original (see `square_box`), in whole grey levels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

import numpy as np
from PIL import Image

from vissl_zoo.data import BadImage, ImageTable, default_workers
from vissl_zoo.data.canvas import fit_to_canvas
from vissl_zoo.evaluation.features import PHOTO_CROP

_CHUNK = 8  # images that a thread decodes at a time: a batch is spread over all of them
_AHEAD = 3  # batches decoded ahead, at most


class Squares(NamedTuple):
    """The decoded images of a batch.

    Attributes:
        rows: (B,) int64, rows of the table.
        pixels: (B, size, size, 3) uint8, the central squares; 0 where an image cannot be read.
        canvases: (B, 3, H, W) uint8, the whole images with their aspect lost, or None if not asked for.
        sizes: (B, 2) int64, original height and width; 0 where unknown.
        errors: (B,), what is wrong with an image; None where nothing is.
    """

    rows: np.ndarray
    pixels: np.ndarray
    canvases: np.ndarray | None
    sizes: np.ndarray
    errors: list[BadImage | None]


def square_box(height: int, width: int, size: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the square that `central_crop` shows of an image, in its pixels, fractions too."""
    keep = 1.0 if max(height, width) <= 1.5 * size else PHOTO_CROP
    side = keep * min(height, width)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


def decoded(
    table: ImageTable,
    batches: Sequence[np.ndarray],
    size: int,
    *,
    workers: int | None = None,
    canvas: tuple[int, int] | None = None,
) -> Iterator[Squares]:
    """Decode the batches of rows in threads, a few batches ahead of the one that is asked for.

    Threads and not processes: Pillow decodes and resizes without the interpreter's lock, and pixels need not be sent.

    Args:
        table: the images.
        batches: rows (B,) of each batch.
        size: side of the squares in pixels.
        workers: threads; by default see `default_workers`.
        canvas: (H, W), to have the whole images at this size too.
    """
    pool = ThreadPoolExecutor(workers or default_workers())
    started: deque[tuple[Squares, list[Future]]] = deque()
    try:
        for rows in chain(batches, [None] * _AHEAD):
            if rows is not None:
                started.append(_start(pool, table, rows, size, canvas))
            if len(started) > _AHEAD or (rows is None and started):
                squares, tasks = started.popleft()
                for task in tasks:
                    task.result()
                yield squares
    finally:
        pool.shutdown(cancel_futures=True)


def _start(
    pool: ThreadPoolExecutor, table: ImageTable, rows: np.ndarray, size: int, canvas: tuple[int, int] | None
) -> tuple[Squares, list[Future]]:
    squares = Squares(
        rows,
        np.zeros((len(rows), size, size, 3), dtype=np.uint8),
        None if canvas is None else np.zeros((len(rows), 3, *canvas), dtype=np.uint8),
        np.zeros((len(rows), 2), dtype=np.int64),
        [None] * len(rows),
    )
    chunks = [range(i, min(i + _CHUNK, len(rows))) for i in range(0, len(rows), _CHUNK)]
    return squares, [pool.submit(_decode, table, squares, slots, size, canvas) for slots in chunks]


def _decode(
    table: ImageTable, squares: Squares, slots: range, size: int, canvas: tuple[int, int] | None
) -> None:
    # Large JPEGs may be decoded at a fraction: to no less than twice the size to which the short side is resized.
    # The same with and without a canvas, so that the square is the same, too.
    least = (round(size / PHOTO_CROP),) * 2
    for slot in slots:
        try:
            image, true = table.read_with_size(int(squares.rows[slot]), least)
        except BadImage as error:
            squares.errors[slot] = error
            continue
        box = square_box(*true, size)  # of the original; the image may have been decoded at a fraction
        scale = image.width / true[1], image.height / true[0]
        box = tuple(edge * scale[i % 2] for i, edge in enumerate(box))
        if (image.width, image.height) == (size, size) and box == (0, 0, size, size):
            square = image
        else:
            square = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
        squares.pixels[slot], squares.sizes[slot] = np.asarray(square), true
        if canvas is not None:
            squares.canvases[slot] = fit_to_canvas(image, canvas)
