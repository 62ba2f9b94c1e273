"""One pass over the images: embedding, κ and uncertainty of each, from the clean central crop."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from vissl_zoo.data import ImageStore
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD
from vissl_zoo.views.crops import resized_crop

PHOTO_CROP = 0.875


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, of pixels in [0, 1], by which a model's input is normalised."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


IMAGENET = Statistics()


def statistics(model: nn.Module) -> Statistics:
    """What the model was trained with, as timm's configuration of it says; ImageNet's for a model without one."""
    cfg = timm.data.resolve_data_config(model=model)
    return Statistics(tuple(cfg["mean"]), tuple(cfg["std"]))


class Features(NamedTuple):
    """What a model says of N images, in the order of the store; corrupt ones are left out.

    Attributes:
        rows: (N,) int64, the data-set row of each.
        embedding: (N, F) float32, as `model(x)` gives it, not normalised.
        kappa: (N,) float32, or None for a model without a κ head.
        uncertainty: (N,) float32 in [0, 1], higher is less certain; None where kappa is.
    """

    rows: np.ndarray
    embedding: np.ndarray
    kappa: np.ndarray | None
    uncertainty: np.ndarray | None


def central_crop(images: Tensor, sizes: Tensor, size: int, normalise: Statistics = IMAGENET) -> Tensor:
    """The central square of each image, normalised: what an evaluation looks at.

    Its side is 0.875 of a photo's short side, 224 of 256 pixels as the paper tests; of an image no larger than 1.5
    times the crop, such as CIFAR's, it is the whole short side.

    Args:
        images: canvases, uint8 (B, 3, H, W).
        sizes: original heights and widths (B, 2), which give the square back its true aspect.
        size: side of the result in pixels.
        normalise: by what, see `statistics`.

    Returns:
        (B, 3, size, size) float32.
    """
    short = sizes.min(dim=1, keepdim=True).values.double()
    canvas = torch.tensor(images.shape[2:], dtype=torch.float64)
    whole = sizes.max(dim=1, keepdim=True).values <= 1.5 * size
    keep = torch.where(whole, 1.0, PHOTO_CROP)
    extent = keep * short / sizes * canvas
    boxes = torch.cat([(canvas - extent) / 2, extent], dim=1).to(images.device, torch.float32)
    flip = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    pixels = resized_crop(images.float().div_(255), boxes, flip, size)
    mean, std = (torch.tensor(x, device=images.device).view(3, 1, 1) for x in normalise)
    return pixels.sub_(mean).div_(std)


@torch.inference_mode()
def extract(
    model: nn.Module,
    store: ImageStore,
    image_size: int,
    *,
    batch_size: int = 256,
    progress: str | None = None,
) -> Features:
    """Embedding, κ and uncertainty of every image of the store.

    Args:
        model: a model of the zoo, or any timm model with num_classes=0, which then has no κ to tell; it is
            evaluated where it lies and left in its mode.
        store: the images.
        image_size: side of the central crop in pixels.
        batch_size: images per forward pass.
        progress: what to call the work in a progress bar; no bar if None.
    """
    parameter = next(model.parameters())
    training = model.training
    model.eval()
    order = np.arange(len(store))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    parts: list[tuple[Tensor, ...]] = []
    found: list[np.ndarray] = []
    with tqdm(total=len(order), desc=progress, unit="image", disable=progress is None, leave=False) as bar:
        for asked, batch in zip(batches, store.batches(iter(batches)), strict=True):
            x = central_crop(batch.images.to(parameter.device), batch.sizes, image_size, statistics(model))
            # Decoded on the fly, a corrupt image has another in its place: that is not what was asked for.
            genuine = torch.from_numpy(asked) == batch.indices
            x = x.to(parameter.dtype)
            represented = (
                model.represent(x) if getattr(model, "kappa_head", None) is not None else (model(x),)
            )
            parts.append(tuple(part.float().cpu()[genuine] for part in represented))
            found.append(store.rows[asked[genuine.numpy()]])
            bar.update(len(batch.images))
    model.train(training)
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    return Features(np.concatenate(found), *(columns if len(columns) == 3 else (*columns, None, None)))
