"""See what the random views of a data set look like.

python -m vissl_zoo.views --data.path photos/ --output views.png
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vissl_zoo.cli import parse_flags
from vissl_zoo.data import BadImage, ImageTable, canvas_size, open_images
from vissl_zoo.data.canvas import read_to_canvas
from vissl_zoo.errors import UserError
from vissl_zoo.recipes import Views
from vissl_zoo.views.pipeline import ViewPipeline
from vissl_zoo.views.sheet import draw_views, file_formats

PROG = "python -m vissl_zoo.views"
MOST = 100  # images and low-resolution views of one figure


@dataclass(frozen=True)
class Data:
    """The images."""

    path: str = "shapes"
    """A Hub data set (org/name), a folder of images, parquet files or a folder of them, or `shapes`, the
    embedded data set."""
    split: str = "train"
    """The split to take images from."""
    image_column: str | None = None
    """The column that holds the images; found by its type if not given."""


@dataclass(frozen=True)
class Options(Views):
    """What to draw; the views are SimSiam's with the paper's multi-crop by default."""

    low: int = 6
    """How many low-resolution views beside the standard ones (multi-crop)."""
    low_size: int | None = 96
    """Side of a low-resolution view in pixels."""
    ratio: tuple[float, float] = ViewPipeline.ratio
    """Width of a crop over its height."""
    data: Data = field(default_factory=Data)
    output: str = "views.png"
    """The file to write; its suffix gives the format, such as .png, .pdf or .svg."""
    images: int = 4
    """How many images, drawn at random, one a row."""
    image_size: int = 224
    """Side of a standard view, in pixels."""
    seed: int = 0
    """Which images and which views."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code, which is 2 after one line on stderr about bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = parse_flags(Options, Options(), arguments, PROG, "Draw the random views of a few images.")
        draw(options)
    except UserError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    print(f"views: {options.output}")
    return 0


def draw(options: Options) -> None:
    """Write the figure that the options describe.

    Raises:
        UserError: one line that names the flag, the data or the file.
    """
    path = Path(options.output)
    if path.suffix[1:].lower() not in file_formats():
        raise UserError(f"--output {path}: the suffix must be one of {', '.join(file_formats())}")
    pipeline = build_pipeline(options)
    table = open_images(options.data.path, split=options.data.split, image_column=options.data.image_column)
    rows, originals = choose_images(table, options.images, options.seed)
    canvas = canvas_size(table, options.image_size)
    images = np.stack([read_to_canvas(table, row, canvas)[0] for row in rows])
    try:
        draw_views(originals, [table.name(row) for row in rows], torch.from_numpy(images), pipeline, path)
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror or error}") from error


def build_pipeline(options: Options) -> ViewPipeline:
    """The views; UserError names the flag whose value is out of range."""
    for flag, value, least in (
        ("images", options.images, 1),
        ("standard", options.standard, 1),
        ("low", options.low, 0),
    ):
        if not least <= value <= MOST:
            raise UserError(f"--{flag} must be from {least} to {MOST}, not {value}")
    if options.low and (options.low_size or 0) >= options.image_size:
        raise UserError(f"--low-size {options.low_size} must be less than --image-size {options.image_size}")
    names = {f.name for f in dataclasses.fields(ViewPipeline)} & {f.name for f in dataclasses.fields(options)}
    try:
        return ViewPipeline(options.image_size, **{name: getattr(options, name) for name in names})
    except ValueError as error:
        option, _, problem = str(error).partition(" ")
        flag = {"size": "image-size"}.get(option, option.replace("_", "-"))
        raise UserError(f"--{flag} {problem}") from error


def choose_images(table: ImageTable, count: int, seed: int) -> tuple[list[int], list]:
    """(rows, upright RGB images) of `count` readable images, drawn without replacement."""
    rows, originals = [], []
    for row in np.random.default_rng(seed).permutation(len(table)).tolist():
        try:
            originals.append(table.read(row))
            rows.append(row)
        except BadImage:
            continue
        if len(rows) == count:
            return rows, originals
    raise UserError(f"--images {count} is more than the {len(rows)} readable images of {table.path}")


if __name__ == "__main__":
    sys.exit(main())
