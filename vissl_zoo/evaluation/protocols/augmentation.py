"""What augmentation does to κ (§6.5, Table 3, Fig. 7): blur, colour jitter, grayscale and random crops.

All but the random crop work on the clean central crop, so that they are compared with it and not with another framing.
Their strengths are SimSiam's, each applied with certainty; the blur's σ is 0.1 to 2 pixels whatever the image's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vissl_zoo.cli import Count
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.figures import NEUTRAL, SURE, UNSURE, new_figure
from vissl_zoo.evaluation.image_views import plain_pipeline, sample_images
from vissl_zoo.evaluation.measures import mean_and_std
from vissl_zoo.inference import RowViews, concatenate
from vissl_zoo.output import short_number
from vissl_zoo.views import ViewPipeline

TITLE = "κ under augmentation"
NEEDS = {"kappa"}
_SETTING = "(ImageNet-100, ResNet-18)"
PAPER = {
    f"augmentation.{name}.{measure}": f"{value} {_SETTING}"
    for name, values in {
        "normal": ("852.63", "143.69"),
        "blur": ("836.05", "147.96"),
        "color_jitter": ("843.94", "144.59"),
        "grayscale": ("846.14", "140.53"),
        "random_crop": ("812.26", "159.05"),
    }.items()
    for measure, value in zip(("mean", "std"), values, strict=True)
}
CROP_SCALE = (0.05, 1.0)  # of the image's area
SHOWN = 8  # images of the figure


@dataclass(frozen=True)
class Options:
    """How many images, and how often each is augmented."""

    images: Count = 2000
    """Test images, drawn by the seed; each costs 3 × draws + 1 forward passes."""
    draws: Count = 5
    """Random draws of each augmentation; grayscale has nothing to draw and is made once."""


def evaluate(evaluation: Evaluation, options: Options) -> Iterator[tuple[str, object]]:
    """Mean and standard deviation of κ for each augmentation, over all draws of all images."""
    chosen = sample_images(evaluation, options.images)
    clean = evaluation.test_features.kappa[chosen]
    yield "augmentation.images", len(chosen)
    yield "augmentation.normal", mean_and_std(clean)
    for name, pipeline in pipelines(evaluation, options.draws).items():
        views = RowViews(pipeline, of_crop=name != "random_crop")
        kappa = concatenate(evaluation.views(chosen, views, name.replace("_", " "))).kappa
        yield f"augmentation.{name}", mean_and_std(kappa)
        if name == "random_crop" and views.count > 1:
            figure = _draw_crops(evaluation, chosen, clean, kappa, views)
            caption = (
                "Test images drawn at random, each with the crops of highest and lowest κ among its "
                f"{views.count} random crops (5% to 100% of the area); the boxes show where they lie."
            )
            evaluation.save_figure(figure, "augmentation.png", caption)


def pipelines(evaluation: Evaluation, draws: int) -> dict[str, ViewPipeline]:
    """The augmentations of Table 3, one at a time."""
    return {
        "blur": plain_pipeline(evaluation, draws, blur=1.0),
        "color_jitter": plain_pipeline(evaluation, draws, jitter=1.0),
        "grayscale": plain_pipeline(evaluation, 1, grayscale=1.0),
        "random_crop": plain_pipeline(evaluation, draws, scale=CROP_SCALE, ratio=ViewPipeline.ratio),
    }


def _draw_crops(
    evaluation: Evaluation, chosen: np.ndarray, clean: np.ndarray, kappa: np.ndarray, views: RowViews
) -> Figure:
    """Originals with two boxes, and what lies in them: two images a row (Fig. 7)."""
    picked = np.sort(np.random.default_rng(evaluation.seed).permutation(len(chosen))[:SHOWN])
    rows = evaluation.test_features.rows[chosen[picked]]
    originals = [evaluation.test.read(int(row)) for row in rows]
    sizes = torch.tensor([(image.height, image.width) for image in originals])
    boxes = views.pipeline.boxes(views.draws(rows), sizes)  # those that were rendered
    figure = new_figure(9.2, 1.62 * -(-len(picked) // 2))
    grid = figure.subplots(-(-len(picked) // 2), 6, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for shown, (image, i) in enumerate(zip(originals, picked, strict=True)):
        row = grid[shown // 2, 3 * (shown % 2) : 3 * (shown % 2) + 3]
        _show(row[0], image, f"κ {short_number(float(clean[i]))}", NEUTRAL)
        both = (kappa[:, i].argmax(), SURE), (kappa[:, i].argmin(), UNSURE)
        for axes, (view, colour) in zip(row[1:], both, strict=True):
            top, left, height, width = boxes[view, shown].tolist()
            crop = image.crop((left, top, left + width, top + height))
            _show(axes, crop, f"κ {short_number(float(kappa[view, i]))}", colour)
            outline = {"fill": False, "edgecolor": colour, "linewidth": 1.6, "clip_on": False}
            row[0].add_patch(Rectangle((left - 0.5, top - 0.5), width, height, **outline))
    return figure


def _show(axes, image, title: str, colour: str) -> None:
    axes.imshow(image, interpolation="nearest" if max(image.size) < 100 else "antialiased")
    axes.set_title(title, fontsize=8, color=colour, pad=3)
