"""The same recipe trained two ways: as train.py does it, or the plain way that everybody knows.

    python benchmarks/plain.py pil 0 demo --seed 1 --output-dir runs/plain-1
    python benchmarks/plain.py batched 10000 demo --data.path cifar10/ --output-dir runs/fast-1

The second word is how many of the training images to take, 0 for all. What follows is train.py's command line.
`batched` is train.py as it is. `pil` differs in two things only: every view is made of a PIL image by torchvision's
transforms, in worker processes, and all is float32. Network, method, initial weights, order of the images, optimizer
and learning rate are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from loops import train_module
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vissl_zoo import training
from vissl_zoo.data import Batch, ImageStore, ImageTable, open_store
from vissl_zoo.errors import UserError
from vissl_zoo.recipes import Recipe, Views
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD

WAYS = ("batched", "pil")
PLAIN = ("--mixed-precision", "no")


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code, which is 2 after one line about bad input."""
    if len(arguments) < 2 or arguments[0] not in WAYS or not arguments[1].isdigit():
        print("plain.py: say `plain.py {batched,pil} IMAGES [RECIPE] FLAGS`", file=sys.stderr)
        return 2
    way, count, flags = arguments[0], int(arguments[1]), arguments[2:]

    def first(table: ImageTable) -> ImageTable:
        if count > len(table):
            raise UserError(f"{count} images are asked for, and {table.path} has {len(table)}")
        return table.select(np.arange(count or len(table)))

    def load_batched(recipe: Recipe, table: ImageTable, accelerator) -> ImageStore:
        return open_store(first(table), recipe.image_size, workers=recipe.data.workers, progress=False)

    def load_pil(recipe: Recipe, table: ImageTable, accelerator) -> PilStore:
        store = load_batched(recipe, table, accelerator)
        return PilStore(store, first(table), views_of(recipe), recipe.seed, recipe.data.workers or 2)

    training.load_images = load_pil if way == "pil" else load_batched
    if way == "pil":
        training.build_views = lambda recipe: ready_views
    return train_module().main([*flags, *(PLAIN if way == "pil" else ())])


def views_of(recipe: Recipe) -> list[v2.Compose]:
    """One torchvision transform a view, from a PIL image to a normalised tensor, with the recipe's augmentation."""
    v = recipe.views
    standard = pil_view(recipe.image_size, v.scale, v)
    return [standard] * v.standard + [pil_view(v.low_size, v.low_scale, v) for _ in range(v.low)]


def pil_view(size: int, scale: tuple[float, float], v: Views) -> v2.Compose:
    """Crop, flip, jitter, grayscale, blur on PIL images, then normalisation."""
    jitter = v2.ColorJitter(v.brightness, v.contrast, v.saturation, v.hue)
    window = 2 * int(np.ceil(4 * v.sigma[1])) + 1
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=scale),
            v2.RandomHorizontalFlip(v.flip),
            v2.RandomApply([jitter], p=v.jitter),
            v2.RandomGrayscale(v.grayscale),
            *([v2.RandomApply([v2.GaussianBlur(window, v.sigma)], p=v.blur)] if v.blur else []),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


class PilStore:
    """A store whose `Batch.images` are views made by transforms: float32 (B, V, 3, s, s), all of one size."""

    def __init__(
        self, store: ImageStore, table: ImageTable, views: list[v2.Compose], seed: int, workers: int
    ):
        self._store = store
        self._images = _Views(table, store.rows, views)
        self._seed, self._workers = seed, workers

    def __len__(self) -> int:
        return len(self._store)

    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """See `ImageStore.batches`; the draws are the workers' own, from the seed."""
        return iter(
            DataLoader(
                self._images,
                batch_size=None,
                sampler=index_batches,
                num_workers=self._workers,
                collate_fn=_as_it_is,
                generator=torch.Generator().manual_seed(self._seed),
            )
        )


class _Views(Dataset):
    """Positions (B,) of images -> `Batch` of their views, image by image."""

    def __init__(self, table: ImageTable, rows: np.ndarray, views: list[v2.Compose]):
        self._images = [table.read(int(row)) for row in rows]  # decoded once, as a Dataset in memory would be
        self._views = views

    def __getitem__(self, indices: np.ndarray) -> Batch:
        images: list[Image.Image] = [self._images[i] for i in indices]
        views = torch.stack([torch.stack([view(image) for view in self._views]) for image in images])
        sizes = torch.tensor([(image.height, image.width) for image in images])
        return Batch(views, sizes, torch.as_tensor(indices))


def ready_views(views: Tensor, *_: object, **__: object) -> list[Tensor]:
    """Views (B, V, 3, s, s) as the training takes them, V tensors (B, 3, s, s): in the place of a `ViewPipeline`."""
    return list(views.unbind(1))


def _as_it_is(item: object) -> object:
    return item


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
