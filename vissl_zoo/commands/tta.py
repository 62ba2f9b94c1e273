"""`vissl-zoo tta IMAGE --model M`: the crop of one image that the model is surest of (test-time augmentation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vissl_zoo.cli import Count, ImageFile, OptionalCount, Required, Seed, parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.output import output_file, short_number, write_whole
from vissl_zoo.photos.inputs import read_image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
SHOWN = 5  # crops that are printed


@dataclass(frozen=True)
class Options:
    """Which image, how many crops, and where the results go."""

    image: ImageFile = ""
    """An image file, or SOURCE#ROW of a parquet file or data set, as `score` names it."""
    model: Required = ""
    """A run folder, an export folder or a registered name; it must have a κ head (see `fit-kappa`)."""
    crops: Count = 30
    """Random crops, among which κ chooses."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and largest area of a crop, as a fraction of the image's."""
    output: str | None = None
    """A picture, .png: the image with its crops of highest and lowest κ, and κ of all."""
    crop: str | None = None
    """The crop of highest κ as an image, .png or .jpg, at its full size."""
    embeddings: str | None = None
    """The embedding of all crops weighted by κ, .npy: float32 (1, F)."""
    image_size: OptionalCount = None
    """Side in pixels at which a crop is seen; by default what the model was trained at."""
    seed: Seed = 0
    """Of the crops."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about the image, the model or a flag."""
    options = parse_flags(Options, Options(), arguments, "vissl-zoo tta", "IMAGE is an image file.")
    if not 0 < options.scale[0] <= options.scale[1] <= 1:
        raise UserError(f"--scale must be two numbers in (0, 1], the smaller first, not {options.scale}")
    output = output_file(options.output, "--output", (".png",), [options.image])
    crop = output_file(options.crop, "--crop", tuple(FORMATS), [options.image])
    if output is not None and crop is not None and output.resolve() == crop.resolve():
        raise UserError(f"--crop {options.crop}: --output writes that file")
    embeddings = output_file(options.embeddings, "--embeddings", (".npy",))
    image = read_image(options.image)
    from vissl_zoo.photos.image_crops import cut, draw_crops, score_crops
    from vissl_zoo.photos.scoring import open_model

    model, _, size, _ = open_model(options.model, options.image_size)
    found = score_crops(model, image, size, crops=options.crops, scale=options.scale, seed=options.seed)
    best = cut(image, found.boxes[found.kappa.argmax()])
    if crop is not None:
        write_whole(crop, lambda path: best.save(path, FORMATS[crop.suffix.lower()]))
    if embeddings is not None:
        write_whole(embeddings, lambda path: np.save(path, found.embedding[None], allow_pickle=False))
    if output is not None:
        figure = draw_crops(image, found)
        write_whole(output, lambda path: figure.savefig(path, format="png"))
    print(f"{'κ':>10}  {'left':>6} {'top':>6} {'width':>6} {'height':>6}")
    ranked = sorted(zip(found.kappa.tolist(), found.boxes.tolist(), strict=True), reverse=True)
    for kappa, (left, top, width, height) in ranked[:SHOWN]:
        print(f"{short_number(kappa):>10}  {left:6} {top:6} {width:6} {height:6}")
    if len(ranked) > SHOWN:
        print(f"{'…':>10}  {len(ranked) - SHOWN} more, the least {short_number(ranked[-1][0])}")
    clean, surest = short_number(found.clean), short_number(ranked[0][0])
    print(f"\nκ of the central crop {clean}, of the surest of {options.crops} {surest}")
    for file in (output, crop, embeddings):
        if file is not None:
            print(f"wrote {file}")
