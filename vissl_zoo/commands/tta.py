"""`vissl-zoo tta IMAGE --model M`: the crop of one image that the model is surest of (test-time augmentation)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from vissl_zoo.cli import parse_flags
from vissl_zoo.commands.score import open_model
from vissl_zoo.errors import UserError
from vissl_zoo.photos.inputs import read_image
from vissl_zoo.photos.page import number
from vissl_zoo.photos.score_table import check_output, write_atomically

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SHOWN = 5  # crops that are printed
ImageFile = Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="IMAGE", help_behavior_hint="")]


@dataclass(frozen=True)
class Arguments:
    """Which image, how many crops, and where the results go."""

    image: ImageFile = None
    """An image file, or SOURCE#ROW of a parquet file or data set, as `score` names it."""
    model: str | None = None
    """A run folder, an export folder or a registered name; it must have a κ head (see `fit-kappa`)."""
    crops: int = 30
    """Random crops, among which κ chooses."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest area of a crop, as a fraction of the image's."""
    output: str | None = None
    """A picture, .png: the image with its crops of highest and lowest κ, and κ of all."""
    crop: str | None = None
    """The crop of highest κ as an image, .png or .jpg, at its full size."""
    embeddings: str | None = None
    """The embedding of all crops weighted by κ, .npy: float32 (1, F)."""
    image_size: int | None = None
    """Side in pixels at which a crop is seen; by default what the model was trained at."""
    seed: int = 0
    """Of the crops."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about the image, the model or a flag.
    """
    about = "IMAGE is an image file."
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo tta", about)
    if not flags.image:
        raise UserError("tta needs an IMAGE (see --help)")
    smallest = min(flags.crops, flags.crops if flags.image_size is None else flags.image_size)
    if smallest < 1 or not 0 <= flags.seed < 2**32:
        raise UserError("--crops and --image-size must be at least 1, --seed in [0, 2**32)")
    if not 0 < flags.scale[0] <= flags.scale[1] <= 1:
        raise UserError(f"--scale must be two numbers in (0, 1], the smaller first, not {flags.scale}")
    output = check_output(flags.output, "--output", (".png",), [flags.image])
    crop = check_output(flags.crop, "--crop", tuple(FORMATS), [flags.image])
    if None not in (output, crop) and output.resolve() == crop.resolve():
        raise UserError(f"--crop {flags.crop}: --output writes that file")
    embeddings = check_output(flags.embeddings, "--embeddings", (".npy",))
    from vissl_zoo.photos.image_crops import cut, draw_crops, score_crops

    image = read_image(flags.image)
    loaded, settings = open_model(flags.model, flags)
    if getattr(loaded.model, "kappa_head", None) is None:
        raise UserError(
            f"{flags.model} has no κ head; give it one with `vissl-zoo fit-kappa --model {flags.model}`"
        )
    found = score_crops(
        loaded.model, image, settings.image_size, crops=flags.crops, scale=flags.scale, seed=flags.seed
    )
    best = cut(image, found.boxes[found.kappa.argmax()])
    if crop is not None:
        write_atomically(crop, lambda path: best.save(path, FORMATS[crop.suffix.lower()]))
    if embeddings is not None:
        write_atomically(embeddings, lambda path: _save(path, found.embedding[None]))
    if output is not None:
        figure = draw_crops(image, found)
        write_atomically(output, lambda path: figure.savefig(path, format="png"))
    print(f"{'κ':>10}  {'left':>6} {'top':>6} {'width':>6} {'height':>6}")
    order = np.argsort(-found.kappa, kind="stable")
    for i in order[:SHOWN]:
        left, top, width, height = found.boxes[i]
        print(f"{number(found.kappa[i]):>10}  {left:6} {top:6} {width:6} {height:6}")
    if len(order) > SHOWN:
        print(f"{'…':>10}  {len(order) - SHOWN} more, the least {number(found.kappa.min())}")
    print(
        f"\nκ of the central crop {number(found.clean)}, of the surest of {flags.crops} {number(found.kappa.max())}"
    )
    for file in (output, crop, embeddings):
        if file is not None:
            print(f"wrote {file}")


def _save(path: Path, embedding: np.ndarray) -> None:
    with open(path, "wb") as file:  # given a name, numpy would add .npy to it
        np.save(file, embedding, allow_pickle=False)
