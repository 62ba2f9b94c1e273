"""Embeddings of several augmented views of each image, extracted once and kept small enough for any data set."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vissl_zoo.data import BadImage, ImageTable, cache_folder
from vissl_zoo.data.tally import BadImageTally
from vissl_zoo.errors import UserError
from vissl_zoo.inference import central_crop, embed
from vissl_zoo.inference.embed import NOT_FINITE
from vissl_zoo.views import ViewPipeline

LARGEST = 1e30  # entry of an embedding; the head's first layer is divided by such entries, in float32
MEMORY_LIMIT = 2 * 2**30  # bytes; features that need more lie on disk


class ViewFeatures:
    """Embeddings (N, V, F) of V views of N images in float16, in memory or on disk.

    float16 alone would overflow at 65,504 and lose a small spread around a large mean. So what is stored is the
    difference from `offset`, an early mean, over the largest entry of each row: good to 5e-4 of that entry.

    Attributes:
        views, width: V and F.
        offset: (F,) float32.
    """

    def __init__(self, images: int, views: int, offset: Tensor, memory_limit: int = MEMORY_LIMIT):
        """Make room.

        Args:
            images: N, at most as many as will be added.
            views: V.
            offset: (F,) what is subtracted.
            memory_limit: bytes above which the features lie in a file of the cache folder, until `close`.

        Raises:
            UserError: the disk has no room for them.
        """
        self.views, self.width, self.offset = views, len(offset), offset.float()
        shape = (images, views, self.width)
        needed = 2 * images * views * self.width
        self._folder = None
        if needed <= memory_limit:
            self._values = np.empty(shape, dtype=np.float16)
        else:
            self._folder = _folder_with_room(needed)
            self._values = np.memmap(Path(self._folder.name, "views.f16"), np.float16, "w+", shape=shape)
        self._scale = np.empty((images, views), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> ViewFeatures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the features, and remove their file."""
        self._values = None
        if self._folder is not None:
            self._folder.cleanup()

    def append(self, embedding: Tensor) -> None:
        """Add finite embeddings (B, V, F) of B images."""
        difference = embedding.float() - self.offset
        scale = difference.abs().amax(dim=2).clamp_min(torch.finfo(torch.float32).tiny)
        part = slice(self._count, self._count + len(embedding))
        self._values[part] = (difference / scale[..., None]).half().numpy()
        self._scale[part] = scale.numpy()
        self._count = part.stop

    def read(self, images: np.ndarray | slice, views: np.ndarray | slice = slice(None)) -> Tensor:
        """Embeddings less `offset`, float32: (B, V, F) of some images, or (B, F) of B (image, view) pairs."""
        values = torch.from_numpy(np.asarray(self._values[images, views]))
        return values.float() * torch.from_numpy(self._scale[images, views])[..., None]


def _folder_with_room(needed: int) -> tempfile.TemporaryDirectory:
    """A folder beside the feature cache, not in /tmp, which is memory on some machines."""
    parent = cache_folder()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if (
            free > needed
        ):  # a file with holes would be made all the same, and kill the process when it is filled
            return tempfile.TemporaryDirectory(prefix="views-", dir=parent)
    except OSError as error:
        raise UserError(f"the features cannot be kept in {parent}: {error.strerror}") from error
    raise UserError(
        f"the features need {needed / 2**30:.1f} GiB in {parent}, which has {free / 2**30:.1f}: take fewer views or "
        "images, or let VISSL_ZOO_CACHE name a folder with more room"
    )


def view_pipeline(model: nn.Module, image_size: int, views: int, seed: int) -> ViewPipeline:
    """SimSiam's augmentation, normalised as the model's own configuration says."""
    crop = central_crop(model, image_size)
    return ViewPipeline(image_size, standard=views, seed=seed, mean=crop.mean, std=crop.std)


def extract_views(
    model: nn.Module,
    table: ImageTable,
    pipeline: ViewPipeline,
    *,
    exact: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    workers: int | None = None,
    progress: str | None = None,
) -> ViewFeatures:
    """Embed the views of every readable image of the table, in its order.

    Args:
        model: with a κ head, trained or not: its embedding is what that head reads.
        table: the images.
        pipeline: makes V views of each.
        exact: plain float32.
        memory_limit: bytes of features kept in memory.
        workers: threads that decode images.
        progress: what to call the work in a progress bar; no bar if None.

    Raises:
        UserError: an embedding is not finite, or not one image can be read.
    """
    features, tally = None, BadImageTally(table.path, 1.0)
    options = {"views": pipeline, "exact": exact, "workers": workers, "progress": progress}
    for batch in embed(model, table, pipeline.size, **options):
        bad = [error not in (None, NOT_FINITE) for error in batch.errors]
        for place in np.flatnonzero(bad):
            row = int(batch.rows[place])
            tally.add(BadImage(row, table.name(row), batch.errors[place]))
        embedding = torch.from_numpy(batch.select(~np.array(bad)).embedding).transpose(0, 1)
        if not len(embedding):
            continue
        _check_finite(embedding)
        if features is None:
            offset = embedding.double().mean(dim=(0, 1)).float()
            features = ViewFeatures(len(table), pipeline.standard, offset, memory_limit)
        features.append(embedding)
    tally.check(len(table))
    tally.report(len(table))
    return features


def _check_finite(embedding: Tensor) -> None:
    bad = ~(embedding.abs() < LARGEST).all(dim=2)  # NaN is not below it either
    if bad.any():
        raise UserError(
            f"the model gives an embedding that is not finite, or beyond {LARGEST:.0e}, for {int(bad.sum())} of "
            f"{bad.numel()} views: no κ can be fitted to it"
        )
