"""A model's word on the images of a table, batch by batch: decoded ahead, and run the fastest way that is as good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vissl_zoo.data import ImageTable, canvas_size
from vissl_zoo.data.tally import BadImageTally
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.fast_forward import Forward, choose_forward
from vissl_zoo.evaluation.features import Features, Statistics, central_crop, statistics
from vissl_zoo.evaluation.squares import Squares, decoded

CPU_BATCH, DEVICE_BATCH = 32, 256
NOT_FINITE = "the model's output is not finite"


class Represented(NamedTuple):
    """A batch of images and what a model says of them.

    Attributes:
        squares: the images as they were decoded.
        embedding: (B, F) float32, not normalised; NaN where an image has an error.
        kappa, uncertainty: (B,) float32, NaN likewise; None for a model without a κ head.
        errors: (B,) one line each, None where all is well.
        forward: how the model was run.
    """

    squares: Squares
    embedding: np.ndarray
    kappa: np.ndarray | None
    uncertainty: np.ndarray | None
    errors: list[str | None]
    forward: Forward


def represented(
    model: nn.Module,
    table: ImageTable,
    image_size: int,
    rows: np.ndarray,
    *,
    exact: bool = False,
    batch_size: int | None = None,
    workers: int | None = None,
    canvas: tuple[int, int] | None = None,
    from_canvas: bool = False,
) -> Iterator[Represented]:
    """Decode and represent the central crops of the rows (N,), in their order.

    With `exact` an image's results are the same bits in whatever order or company it comes: plain float32 with
    deterministic kernels, and every batch of the same size (the last is filled up), because kernels are chosen by
    shape. Machine, torch, number of threads and `batch_size` must be the same.

    Args:
        model: with or without a κ head; it is evaluated where it lies, and left in its mode.
        table: the images.
        image_size: side of the crops in pixels.
        rows: rows of the table.
        exact: see above; else the fastest way to run the model is found out, see `choose_forward`.
        batch_size: images of a forward pass; by default 32 on a CPU and 256 on an accelerator.
        workers: threads that decode; by default one for each CPU, 16 at most.
        canvas: (H, W), to have the whole images decoded too.
        from_canvas: take the central crop from the canvas, as all that compares it with other views must.
    """
    device = next(model.parameters()).device
    size = batch_size or default_batch(device)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    forward, training, by = None, model.training, statistics(model)
    model.eval()
    try:
        for squares in decoded(table, batches, image_size, workers=workers, canvas=canvas):
            if from_canvas:
                sizes = torch.from_numpy(squares.sizes).clamp_min(1)  # 0 where an image cannot be read
                images = central_crop(torch.from_numpy(squares.canvases).to(device), sizes, image_size, by)
            else:
                images = normalise(squares.pixels, device, by)
            if exact:
                images = fill_up(images, size)
            if forward is None:
                forward = choose_forward(model, images, len(rows), exact=exact)
            said = [None if part is None else part.cpu().numpy() for part in forward.call(images)]
            said = [None if part is None else part[: len(squares.rows)] for part in said]
            errors = [None if error is None else error.reason for error in squares.errors]
            yield Represented(squares, *blank_failures(said, errors), errors, forward)
    finally:
        model.train(training)


def default_batch(device: torch.device) -> int:
    """Images of a forward pass: on a CPU 32 cost less each than 8, and an accelerator wants more."""
    return CPU_BATCH if device.type == "cpu" else DEVICE_BATCH


def extract_rows(
    model: nn.Module,
    table: ImageTable,
    image_size: int,
    rows: np.ndarray,
    *,
    exact: bool = False,
    workers: int | None = None,
    progress: str | None = None,
) -> Features:
    """Embedding, κ and uncertainty of the rows' images; those that cannot be read are left out, and named in the log.

    Arguments as for `represented`; `progress` is what to call the work in a progress bar, none if it is None.

    Raises:
        UserError: the model's output is not finite, or not one image can be read.
    """
    tally = BadImageTally(table.path, 1.0)
    # The crops of an evaluation come from canvases, as its augmented and corrupted views do: taken straight from the
    # original they are a little sharper, and a view would differ from them by more than what was done to it.
    options = {
        "exact": exact,
        "workers": workers,
        "canvas": canvas_size(table, image_size),
        "from_canvas": True,
    }
    parts, broken = [], 0
    with tqdm(total=len(rows), desc=progress, unit="image", disable=progress is None, leave=False) as bar:
        for batch in represented(model, table, image_size, rows, **options):
            for error in filter(None, batch.squares.errors):
                tally.add(error)
            broken += batch.errors.count(NOT_FINITE)
            good = np.array([error is None for error in batch.errors])
            columns = (batch.squares.rows, batch.embedding, batch.kappa, batch.uncertainty)
            parts.append([None if column is None else column[good] for column in columns])
            bar.update(len(good))
    tally.check(len(rows))
    tally.report(len(rows))
    if broken:
        raise UserError(f"{table.path}: the model's output is not finite for {broken} of {len(rows)} images")
    return Features(*(None if c[0] is None else np.concatenate(c) for c in zip(*parts, strict=True)))


def normalise(pixels: np.ndarray, device: torch.device, by: Statistics) -> Tensor:
    """Pixels uint8 (B, s, s, 3) -> (B, 3, s, s) float32 as a network takes them, channels-last in memory."""
    mean, std = torch.tensor(by, device=device).view(2, 3, 1, 1)
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


def fill_up(images: Tensor, size: int) -> Tensor:
    """Images (B, …) with zeros behind them, (size, …)."""
    return torch.cat([images, images.new_zeros(size - len(images), *images.shape[1:])])


def blank_failures(said: list[np.ndarray | None], errors: list[str | None]) -> list[np.ndarray | None]:
    """The columns (B, …) with NaN for every image with an error; one whose numbers are not finite gets it here."""
    columns = [part.copy() for part in said if part is not None]
    for slot, error in enumerate(errors):
        if error is None and not all(np.isfinite(column[slot]).all() for column in columns):
            errors[slot] = NOT_FINITE
        if errors[slot] is not None:
            for column in columns:
                column[slot] = np.nan
    return columns + [None] * (len(said) - len(columns))
