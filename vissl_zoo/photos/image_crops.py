"""Random crops of one image: which of them the model is surest of, and all of them as one embedding (Table 5)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL.Image import Image as PILImage

from vissl_zoo.evaluation.figures import NEUTRAL, SURE, UNSURE, new_figure
from vissl_zoo.inference import central_crop
from vissl_zoo.output import short_number
from vissl_zoo.views import ViewPipeline

_BATCH = 32
_LONGEST = 1536  # pixels of the image that crops are taken from; finer detail is lost in a crop's few pixels


class Crops(NamedTuple):
    """V crops of an image.

    Attributes:
        boxes: (V, 4) int64: left, top, width, height in pixels of the upright original.
        kappa: (V,) float32.
        clean: κ of the central crop, for comparison.
        embedding: (F,) float32, the mean over the crops of μ weighted by κ, at their mean length; μ is an embedding at
            length 1.
    """

    boxes: np.ndarray
    kappa: np.ndarray
    clean: float
    embedding: np.ndarray


def score_crops(
    model: Any,
    image: PILImage,
    image_size: int,
    *,
    crops: int = 30,
    scale: tuple[float, float] = (0.08, 1.0),
    seed: int = 0,
) -> Crops:
    """Represent random crops of an upright RGB image.

    Args:
        model: a module with `represent`.
        image: the whole image.
        image_size: side in pixels at which each crop is seen.
        crops: V, how many.
        scale: least and largest area of a crop as a fraction of the image's.
        seed: of the crops.
    """
    sizes = torch.tensor([[image.height, image.width]])
    canvas = image.copy()
    canvas.thumbnail((_LONGEST, _LONGEST))
    central = central_crop(model, image_size)
    plain = dict.fromkeys(("flip", "jitter", "grayscale", "blur"), 0.0)
    pipeline = ViewPipeline(
        image_size, standard=crops, scale=scale, seed=seed, mean=central.mean, std=central.std, **plain
    )
    draws = pipeline.draw(1, 0)
    views = pipeline.render(_as_tensor(canvas), sizes, draws)
    clean = central.normalise(_as_tensor(central.crop(image)))
    parameter, training = next(model.parameters()), model.training
    model.eval()
    with torch.inference_mode():
        parts = [model.represent(x.to(parameter)) for x in torch.cat([*views, clean]).split(_BATCH)]
    model.train(training)
    embedding, kappa = (torch.cat([part[i] for part in parts]).float().cpu().numpy() for i in (0, 1))
    length = np.linalg.norm(embedding[:-1], axis=1, keepdims=True)
    combined = (kappa[:-1, None] * embedding[:-1] / length).sum(axis=0)
    combined *= length.mean() / kappa[:-1].sum()  # so that a linear classifier, which has a bias, can take it
    boxes = pipeline.boxes(draws, sizes)[:, 0, [1, 0, 3, 2]].numpy()
    return Crops(boxes, kappa[:-1], float(kappa[-1]), combined)


def _as_tensor(image: PILImage | np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def cut(image: PILImage, box: np.ndarray) -> PILImage:
    """The part of an image within a box (4,): left, top, width, height."""
    left, top, width, height = (int(v) for v in box)
    return image.crop((left, top, left + width, top + height))


def draw_crops(image: PILImage, found: Crops) -> Figure:
    """The image with the crops of highest and lowest κ as boxes, those crops beside it, and κ of all of them."""
    best, worst = int(found.kappa.argmax()), int(found.kappa.argmin())
    ends = ((best, SURE, "highest κ"), (worst, UNSURE, "lowest κ"))
    figure = new_figure(9.2, 4.4)
    parts: Any = figure.subfigures(1, 2, width_ratios=[1.5, 1])
    whole, right = parts
    axes = whole.subplots()
    shown = image.copy()
    shown.thumbnail((1024, 1024))
    axes.imshow(shown, extent=(0, image.width, image.height, 0))
    axes.axis("off")
    for i in range(len(found.kappa)):
        left, top, width, height = found.boxes[i]
        style = {"fill": False, "lw": 0.6, "ec": "white", "alpha": 0.45}
        axes.add_patch(Rectangle((left, top), width, height, **style))
    for i, colour, _ in ends:
        left, top, width, height = found.boxes[i]
        axes.add_patch(Rectangle((left, top), width, height, fill=False, lw=2.6, ec=colour))
    (first, second), (strip, _) = right.subplots(2, 2, height_ratios=[2.2, 1])
    grid = strip.get_gridspec()
    for each in right.axes[2:]:
        each.remove()
    for axes, (i, colour, name) in zip((first, second), ends, strict=True):
        crop = cut(image, found.boxes[i])
        crop.thumbnail((512, 512))
        axes.imshow(crop)
        axes.set_title(f"{name}: {short_number(float(found.kappa[i]))}", fontsize=9, color=colour)
        axes.axis("off")
    strip = right.add_subplot(grid[1, :])
    strip.vlines(found.kappa, 0, 1, color=NEUTRAL, lw=1, alpha=0.6)
    for i, colour, _ in ends:
        strip.vlines(found.kappa[i], 0, 1, color=colour, lw=2.4)
    strip.plot([found.clean], [1.15], marker="v", color=NEUTRAL, ms=6, clip_on=False)
    strip.set_xlabel(f"κ of {len(found.kappa)} crops; ▾ central crop", fontsize=8)
    strip.set_yticks([])
    strip.set_ylim(0, 1.25)
    strip.spines[["top", "right", "left"]].set_visible(False)
    strip.tick_params(labelsize=8)
    return figure
