"""A model's word on the images of a table, batch by batch: on their central crops, or on V views of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from itertools import chain
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vissl_zoo.data import BadImage, ImageTable, canvas_size, default_workers
from vissl_zoo.data.canvas import fit_to_canvas
from vissl_zoo.data.decode import BadImageTally
from vissl_zoo.data.quality import measure
from vissl_zoo.errors import UserError
from vissl_zoo.inference.crop import CentralCrop, central_crop
from vissl_zoo.inference.forward import Forward, exact_forward, fast_forward
from vissl_zoo.models import Representation
from vissl_zoo.views import ViewDraws, ViewPipeline

DEVICE_BATCH = 256
CPU_PIXELS = (
    32 * 224**2
)  # of a forward pass on a CPU: fewer images of 224 pixels cost more each, and so do small ones
NOT_FINITE = "the model's output is not finite"
_CHUNK = 8  # images that a thread decodes at a time: a batch is spread over all threads
_AHEAD = 3  # batches decoded ahead, at most
_LEAST = 48  # pixels: crops of 32 lose more by a coarse decoding than larger ones


class Embedded(NamedTuple):
    """What a model says of B images, in the order in which they were asked for.

    Attributes:
        rows: (B,) int64, rows of the table.
        representation: float32 arrays: embedding (B, F), not normalised, κ and uncertainty (B,). Of V views (V, B, …).
            NaN where an image has an error. κ and uncertainty are None for a model without a κ head.
        sizes: (B, 2) int64, original height and width; 0 where unknown.
        errors: (B,) one line each, None where all is well.
        pixels: (B, 3) float32, `Quality`, and content hashes (B,), "" where unknown; None if not asked for.
    """

    rows: np.ndarray
    representation: Representation
    sizes: np.ndarray
    errors: list[str | None]
    pixels: tuple[np.ndarray, list[str]] | None = None

    @property
    def embedding(self) -> np.ndarray:
        """(B, F) or (V, B, F), not normalised."""
        return cast(np.ndarray, self.representation.embedding)

    @property
    def kappa(self) -> Any:
        """(B,) or (V, B); None for a model without a κ head."""
        return self.representation.kappa

    @property
    def uncertainty(self) -> Any:
        """(B,) or (V, B), higher is less certain; None for a model without a κ head."""
        return self.representation.uncertainty

    def select(self, places: np.ndarray) -> Embedded:
        """Some of the images, by place (M,) or by (B,) bool."""
        places = np.arange(len(self.rows))[places]
        axis = self.embedding.ndim - 2
        said: Any = (None if part is None else np.take(part, places, axis) for part in self.representation)
        errors = [self.errors[place] for place in places]
        return Embedded(self.rows[places], Representation(*said), self.sizes[places], errors)


class Views(Protocol):
    """What makes `count` views of each image.

    With `of_crop` it is given the central crops, so that a view differs from the clean crop by what is done to it
    alone; else the whole images on canvases of one size (see `canvas_size`).
    """

    count: int
    of_crop: bool

    def __call__(self, pixels: Tensor, sizes: Tensor, rows: np.ndarray) -> Sequence[Tensor]:
        """Pixels uint8 (B, 3, H, W), original sizes (B, 2) and rows (B,) -> normalised views, each (B, 3, s, s)."""
        ...


class RowViews:
    """The views of a pipeline, of which each image's follow from the pipeline's seed and the image's row alone."""

    def __init__(self, pipeline: ViewPipeline, *, of_crop: bool = False):
        self.pipeline, self.count, self.of_crop = pipeline, pipeline.standard, of_crop

    def __call__(self, pixels: Tensor, sizes: Tensor, rows: np.ndarray) -> list[Tensor]:
        """See `Views`."""
        return self.pipeline.render(pixels, sizes, self.draws(rows))

    def draws(self, rows: np.ndarray) -> ViewDraws:
        """The random numbers of each row's own stream, (V, B, …)."""
        drawn = [self.pipeline.draw(1, int(row)) for row in rows]
        return ViewDraws(
            **{f.name: torch.cat([getattr(d, f.name) for d in drawn], dim=1) for f in fields(ViewDraws)}
        )


def embed(
    model: nn.Module,
    table: ImageTable,
    image_size: int | None = None,
    *,
    rows: np.ndarray | None = None,
    views: ViewPipeline | Views | None = None,
    clean: bool = False,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    measured: bool = False,
    progress: str | None = None,
) -> Iterator[Embedded]:
    """Decode images and embed their central crops, or views of them, in the order of `rows`.

    An image that cannot be read, or of which the output is not finite, has its reason in `errors` and stops nothing.

    With `exact` an image's results are the same bits in whatever order or company it comes, for one machine, torch,
    number of threads and `batch_size`: every batch is filled up to one size, because kernels are chosen by shape.

    Args:
        model: with or without a κ head; it is evaluated where it lies, and left in its mode.
        table: the images.
        image_size: side of the crops in pixels; by default the model's own.
        rows: (N,) rows of the table, repetitions allowed; by default all.
        views: a pipeline, see `RowViews`, or another maker of views; the central crop alone if None.
        clean: put the central crop before the views, as one more.
        exact: decode in full and compute in plain float32, else see `fast_forward`; large JPEGs are then decoded at a
            fraction of their size, to no less than twice what is needed.
        batch_size: images of a forward pass; by default 256, on a CPU fewer of more than 79 pixels (32 of 224).
        workers: threads that decode; by default one for each CPU, 16 at most.
        measured: also measure the pixels, and hash the files.
        progress: what to call the work in a progress bar; no bar if None.

    Raises:
        ValueError: `batch_size` below 1, or a row that the table does not have.
    """
    rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(table):
        raise ValueError(f"rows must lie in 0 … {len(table) - 1}, got {rows.min()} to {rows.max()}")
    if isinstance(views, ViewPipeline):
        views = RowViews(views)
    device = next(model.parameters()).device
    crop = central_crop(model, image_size)
    most = CPU_PIXELS // crop.size**2 if device.type == "cpu" else DEVICE_BATCH
    size = batch_size or max(1, min(most, DEVICE_BATCH))
    run = _Run(model, table, crop, views, clean or views is None, exact, size, workers, measured)
    return _embed(run, rows, progress)


def embed_all(
    model: nn.Module,
    table: ImageTable,
    image_size: int | None = None,
    *,
    rows: np.ndarray | None = None,
    **options,
) -> Embedded:
    """`embed`, put together; images that cannot be read are left out, and named in the log. Arguments as for `embed`.

    Raises:
        UserError: the model's output is not finite, or not one image can be read.
    """
    tally, count = BadImageTally(table.path, 1.0), len(table if rows is None else rows)
    parts, broken = [], 0
    for batch in embed(model, table, image_size, rows=rows, **options):
        for row, error in zip(batch.rows, batch.errors, strict=True):
            broken += error == NOT_FINITE
            if error not in (None, NOT_FINITE):
                tally.add(BadImage(int(row), table.name(row), error))
        parts.append(batch.select(np.array([error is None for error in batch.errors])))
    tally.check(count)
    tally.report(count)
    if broken:
        raise UserError(f"{table.path}: the model's output is not finite for {broken} of {count} images")
    return concatenate(parts)


def concatenate(parts: Iterable[Embedded]) -> Embedded:
    """Batches put together, one or more of them."""
    parts = list(parts)
    columns: Any = zip(*(part.representation for part in parts), strict=True)
    axis = parts[0].embedding.ndim - 2
    said: Any = (None if column[0] is None else np.concatenate(column, axis) for column in columns)
    rows, sizes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "sizes"))
    return Embedded(rows, Representation(*said), sizes, [error for part in parts for error in part.errors])


class _Run(NamedTuple):
    """What `embed` was asked for."""

    model: nn.Module
    table: ImageTable
    crop: CentralCrop
    views: Views | None
    clean: bool
    exact: bool
    size: int
    workers: int | None
    measured: bool


def _embed(run: _Run, rows: np.ndarray, progress: str | None) -> Iterator[Embedded]:
    model, views = run.model, run.views
    device, training = next(model.parameters()).device, model.training
    count = run.clean + (0 if views is None else views.count)
    step = max(1, min(run.size, 8 * run.size // count))  # images whose views are held at once
    batches = [rows[i : i + step] for i in range(0, len(rows), step)]
    canvas = None if views is None or views.of_crop else canvas_size(run.table, run.crop.size)
    model.eval()
    bar = tqdm(total=len(rows), desc=progress, unit="image", disable=progress is None, leave=False)
    try:
        if run.exact:
            forward = exact_forward(model)
        else:
            # Views do not count: with and without them the clean crop is run one way.
            forward = fast_forward(model, run.crop.size, len(rows))
        for decoded in _decode_ahead(run, batches, canvas):
            said: Any = _in_parts(forward, _rendered(run, decoded, device), run.size, fill_up=run.exact)
            if views is not None:
                shape = (count, len(decoded.rows))
                said = [None if part is None else part.reshape(*shape, *part.shape[1:]) for part in said]
            _blank_failures(said, decoded.errors)
            pixels = (decoded.quality, decoded.hashes) if run.measured else None
            yield Embedded(decoded.rows, Representation(*said), decoded.sizes, decoded.errors, pixels)
            bar.update(len(decoded.rows))
    finally:
        bar.close()
        model.train(training)


def _rendered(run: _Run, decoded: _Decoded, device: torch.device) -> Tensor:
    """The central crops, if asked for, and all views of a batch: (V·B, 3, s, s)."""
    pixels = torch.from_numpy(decoded.crops).to(device).permute(0, 3, 1, 2)  # channels-last in memory
    rendered = [run.crop.normalise(pixels)] if run.clean else []
    if run.views is not None:
        sizes = torch.from_numpy(decoded.sizes).clamp_min(1)  # unknown where an image cannot be read
        if run.views.of_crop:
            sizes = torch.full_like(sizes, run.crop.size)
        else:
            pixels = torch.from_numpy(decoded.canvases).to(device)
        # Exactly: one image at a time, because how a pipeline rounds depends on the company.
        step = 1 if run.exact else len(pixels)
        parts = [slice(i, i + step) for i in range(0, len(pixels), step)]
        made = [run.views(pixels[part], sizes[part], decoded.rows[part]) for part in parts]
        rendered += [torch.cat(view) for view in zip(*made, strict=True)]
    return rendered[0] if len(rendered) == 1 else torch.cat(rendered)


def _in_parts(forward: Forward, x: Tensor, size: int, *, fill_up: bool) -> list[np.ndarray | None]:
    """What the model says of images (N, …), `size` at a time, as arrays (N, …)."""
    parts = []
    for part in x.split(size):
        if fill_up and len(part) < size:
            part = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
        parts.append(forward(part))
    return [
        None if column[0] is None else torch.cat(column)[: len(x)].cpu().numpy()
        for column in zip(*parts, strict=True)
    ]


def _blank_failures(said: list[np.ndarray | None], errors: list[str | None]) -> None:
    """NaN for every image with an error; one whose numbers are not finite gets it here."""
    columns = [part for part in said if part is not None]
    axis = columns[0].ndim - 2
    for slot, error in enumerate(errors):
        own = [column[:, slot] if axis else column[slot : slot + 1] for column in columns]
        if error is None and not all(np.isfinite(values).all() for values in own):
            errors[slot] = NOT_FINITE
        if errors[slot] is not None:
            for values in own:
                values[...] = np.nan


class _Decoded(NamedTuple):
    """A batch of decoded images.

    Attributes:
        rows: (B,) int64, rows of the table.
        crops: (B, s, s, 3) uint8; 0 where an image cannot be read.
        canvases: (B, 3, H, W) uint8, the whole images with their aspect lost; empty if not asked for.
        sizes: (B, 2) int64, original height and width; 0 where unknown.
        errors: (B,) what is wrong with an image; None where nothing is.
        quality: (B, 3) float32, `Quality`, and `hashes` (B,) of the files; NaN and "" where unknown.
    """

    rows: np.ndarray
    crops: np.ndarray
    canvases: np.ndarray
    sizes: np.ndarray
    errors: list[str | None]
    quality: np.ndarray
    hashes: list[str]


def _decode_ahead(
    run: _Run, batches: Sequence[np.ndarray], canvas: tuple[int, int] | None
) -> Iterator[_Decoded]:
    """Decode batches of rows (B,) in threads, a few ahead of the one that is asked for.

    Threads and not processes: Pillow decodes and resizes without the interpreter's lock, and pixels need not be sent.
    """
    pool = ThreadPoolExecutor(run.workers or default_workers())
    started: deque[tuple[_Decoded, list[Future]]] = deque()
    try:
        for rows in chain(batches, [None] * _AHEAD):
            if rows is not None:
                count, s = len(rows), run.crop.size
                crops = np.zeros((count, s, s, 3), np.uint8)
                canvases = np.zeros((0 if canvas is None else count, 3, *(canvas or (0, 0))), np.uint8)
                quality = np.full((count, 3), np.nan, np.float32)
                sizes, hashes = np.zeros((count, 2), np.int64), [""] * count
                errors: list[str | None] = [None] * count
                decoded = _Decoded(rows, crops, canvases, sizes, errors, quality, hashes)
                chunks = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
                started.append((decoded, [pool.submit(_decode, run, decoded, slots) for slots in chunks]))
            if len(started) > _AHEAD or (rows is None and started):
                decoded, tasks = started.popleft()
                for task in tasks:
                    task.result()
                yield decoded
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(run: _Run, decoded: _Decoded, slots: range) -> None:
    # A JPEG may come at a fraction of its size, of no less than twice this; with and without canvases the same.
    least = max(run.crop.short, _LEAST)
    for slot in slots:
        try:
            image, original = run.table.read_with_size(
                int(decoded.rows[slot]), None if run.exact else (least, least)
            )
        except BadImage as error:
            decoded.errors[slot] = error.reason
            continue
        decoded.crops[slot] = run.crop.crop(image) if run.exact else run.crop.crop_fast(image, original)
        decoded.sizes[slot] = original
        if run.measured:
            decoded.quality[slot] = measure(image, run.crop.seen(image, original))
            decoded.hashes[slot] = run.table.content_hash(int(decoded.rows[slot]))
        if len(decoded.canvases):
            decoded.canvases[slot] = fit_to_canvas(image, decoded.canvases.shape[2:])
