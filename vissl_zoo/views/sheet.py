"""The figure of a paper that shows the augmentation: images, the crops taken from them, and the views they became.

It is the paper's Fig. 8, made by the pipeline that training uses, in true colours and at true relative size.
Matplotlib draws on a file alone; no window is opened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL.Image import Image
from torch import Tensor

from vissl_zoo.views.draws import ViewDraws
from vissl_zoo.views.pipeline import ViewPipeline

SIDE = 1.5  # of a standard view; this and the other lengths are in inches
WIDEST = 1.5 * SIDE  # an original is fitted into this width and the height of a view
LEAST, LETTER = 1.05, 0.068  # width of the first column and of a heading's letter, so that none is cut off
GAP, BLOCK_GAP, MARGIN = 0.07, 0.22, 0.06  # between views, between the three blocks, around the page
HEADING, CAPTION, ROW_GAP = 0.28, 0.17, 0.12
PIXELS = 300  # a view is drawn on at least so many, a whole multiple of its own
STANDARD, LOW = ("#0b7a75", "#d1495b"), "#5f4b8b"  # apart for the colour-blind too
INK, FAINT = "#222222", "#6b6b6b"


def file_formats() -> list[str]:
    """The suffixes, without their dot, of the files that `draw_views` can write."""
    return sorted(FigureCanvasBase.get_supported_filetypes())


def draw_views(
    originals: Sequence[Image], names: Sequence[str], images: Tensor, pipeline: ViewPipeline, path: Path
) -> None:
    """Write a figure of one row an image: the original, its standard views, its low-resolution views.

    originals, names: B images as the data set has them; images uint8 (B, 3, H, W): the same at canvas size. The
    views are those that a training step 0 with these B images would see. A crop and its view share colour and
    number. The suffix of `path` gives the format (see `file_formats`). Raises OSError if it cannot be written.
    """
    sizes = torch.tensor([(image.height, image.width) for image in originals])
    draws = pipeline.draw(len(originals), step=0)
    boxes = pipeline.boxes(draws, sizes)
    views = [true_colours(view, pipeline) for view in pipeline.render(images, sizes, draws)]

    # Where each view stands relative to the top left corner of its row, and how large it is.
    wide = max(min(SIDE * image.width / image.height, WIDEST) for image in originals)
    wide = max(wide, LEAST)
    left = MARGIN + wide + BLOCK_GAP
    places = [(left + n * (SIDE + GAP), 0.0, SIDE) for n in range(pipeline.standard)]
    headings = [
        (MARGIN, "original and crops"),
        (left, _heading(pipeline.standard, "standard", pipeline.size)),
    ]
    if pipeline.low:
        left = places[-1][0] + SIDE + BLOCK_GAP
        side = SIDE * pipeline.sizes[-1] / pipeline.size
        places += _grid(pipeline.low, side, left)
        headings.append((left, _heading(pipeline.low, "low-resolution", pipeline.sizes[-1])))

    pitch = SIDE + CAPTION + ROW_GAP
    last, heading = headings[-1]
    width = max(last + LETTER * len(heading), *(left + side for left, _, side in places)) + MARGIN
    page = Page(width, HEADING + len(originals) * pitch - ROW_GAP + MARGIN, pipeline.size)
    for left, heading in headings:
        page.text(left, HEADING / 2, heading, size=8, color=INK)
    for row, original in enumerate(originals):
        top = HEADING + row * pitch
        _draw_original(page, top, original, boxes[:, row], pipeline.standard)
        page.text(MARGIN, top + SIDE + CAPTION / 2, _caption(names[row], original, wide + BLOCK_GAP / 2))
        for view, (left, down, side) in enumerate(places):
            page.view(left, top + down, side, views[view][row], *_style(view, pipeline.standard))
            if view < pipeline.standard:
                said = describe(draws, boxes[view, row], sizes[row], view, row)
                page.text(left, top + SIDE + CAPTION / 2, said)
    page.figure.savefig(path)


def true_colours(view: Tensor, pipeline: ViewPipeline) -> np.ndarray:
    """Views (B, 3, s, s) as the network takes them -> (B, s, s, 3) uint8 as one would look at them."""
    mean, std = torch.tensor([pipeline.mean, pipeline.std], dtype=view.dtype).view(2, 3, 1, 1)
    return (view * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def describe(draws: ViewDraws, box: Tensor, size: Tensor, view: int, image: int) -> str:
    """What was drawn for one view, in a few words: the crop's share of the image's area, and what was done to it."""
    said = [f"{box[2:].prod() / size.prod():.0%}"]
    for name, word in (("flip", "flip"), ("jitter", "jitter"), ("grayscale", "gray")):
        if getattr(draws, name)[view, image]:
            said.append(word)
    if draws.blur[view, image]:
        said.append(f"blur σ {draws.sigma[view, image]:.1f}")
    return ", ".join(said)


class Page:
    """A figure on which things are placed by inches from its top left corner."""

    def __init__(self, width: float, height: float, size: int):
        self.width, self.height = width, height
        dpi = size * math.ceil(PIXELS / size) / SIDE
        self.figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(self.figure)

    def text(self, left: float, middle: float, text: str, size: float = 6.5, color: str = FAINT) -> None:
        """One line of text, its middle so far down."""
        place = (left / self.width, 1 - middle / self.height)
        self.figure.text(*place, text, fontsize=size, color=color, va="center_baseline")

    def picture(self, left: float, top: float, width: float, height: float, picture: object) -> Axes:
        """Axes that hold a picture, in coordinates of its pixels."""
        bottom = self.height - top - height
        area = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(area)
        pixels = np.asarray(picture)
        enlarged = width * self.figure.dpi >= pixels.shape[1]
        extent = (0, pixels.shape[1], pixels.shape[0], 0)
        axes.imshow(
            pixels, extent=extent, aspect="auto", interpolation="nearest" if enlarged else "antialiased"
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def view(self, left: float, top: float, side: float, pixels: np.ndarray, color: str, number: str) -> None:
        """A view in a frame of its colour, with its number in the corner."""
        axes = self.picture(left, top, side, side, pixels)
        axes.spines[:].set(visible=True, color=color, linewidth=1.1)
        _tag(axes, 0, 0, color, number)


def _draw_original(page: Page, top: float, original: Image, boxes: Tensor, standard: int) -> None:
    """An original in a row of height SIDE, with the outlines of its crops, boxes (V, 4)."""
    height = min(SIDE, WIDEST * original.height / original.width)
    width = height * original.width / original.height
    axes = page.picture(MARGIN, top + (SIDE - height) / 2, width, height, original)
    for view in reversed(range(len(boxes))):  # the first ones on top
        y, x, box_height, box_width = boxes[view].tolist()
        color, number = _style(view, standard)
        line = 1.3 if view < standard else 0.8
        halo = [withStroke(linewidth=line + 1.2, foreground="white")]
        look = {"fill": False, "color": color, "linewidth": line, "path_effects": halo, "clip_on": False}
        axes.add_patch(Rectangle((x, y), box_width, box_height, **look))
        _tag(axes, x, y, color, number)


def _tag(axes: Axes, x: float, y: float, color: str, number: str) -> None:
    box = {"boxstyle": "square,pad=0.18", "facecolor": color, "edgecolor": "none"}
    offset = {"xytext": (1.6, -1.6), "textcoords": "offset points", "ha": "left", "va": "top"}
    axes.annotate(number, (x, y), fontsize=5, fontweight="bold", color="white", bbox=box, **offset)


def _style(view: int, standard: int) -> tuple[str, str]:
    """The colour and the number of a view: 1, 2 for the standard ones, a, b, … for the others."""
    if view < standard:
        return STANDARD[view % len(STANDARD)], str(view + 1)
    place = view - standard
    return LOW, chr(ord("a") + place) if place < 26 else str(place + 1)


def _grid(count: int, side: float, left: float) -> list[tuple[float, float, float]]:
    """(left, down, side) of views in as few columns as fit beside a standard view and its caption.

    Where there is room the last row ends with the standard view, and the gaps are the same across and down.
    """
    rows = min(count, max(1, int((SIDE + CAPTION + GAP) / (side + GAP))))
    columns = math.ceil(count / rows)
    rows = math.ceil(count / columns)
    gap = min(max((SIDE - rows * side) / (rows - 1), GAP), BLOCK_GAP) if rows > 1 else GAP
    return [(left + n % columns * (side + gap), n // columns * (side + gap), side) for n in range(count)]


def _heading(count: int, kind: str, size: int) -> str:
    return f"{count} {kind} view{'s' if count != 1 else ''}, {size} px"


def _caption(name: str, original: Image, width: float) -> str:
    """The name and size of an image, or what fits of its name into `width` inches of the caption's type."""
    full, most = f"{name}, {original.width} × {original.height}", int(width / 0.052)
    if len(full) <= most:
        return full
    return name if len(name) <= most else f"{name[: most - 1]}…"
