"""The embedded data set: ten shapes on textured grey, each image with a known ambiguity a(x) in [0, 1].

It gives κ a ground truth that no photograph has. Ambiguity is *clutter*: with a(x) the labelled shape shrinks and
up to two others appear beside it, so two random crops see different things and disagree. Low contrast, blur or small
size on a plain background do the opposite and were dropped: two crops of a nearly blank image agree perfectly, and κ
says, rightly, that it is sure.

Two more choices keep a network, and the scores that need none, from cheating:

- Light shapes on one grey background for all. Colours, dark shapes on light, or a texture of varying strength
  were tried: the views of an image are then matched by those alone, and no shape is ever learnt.
- Contrast is drawn independently of a(x), and competitors are few and small, so that the total outline hardly grows.
  Neither edge density nor pixel deviation then gives the ambiguity away (Spearman of 0.2 at most). A score
  made for these very images still can: the mean gradient after normalising the contrast reaches 0.5.
"""

from __future__ import annotations

import math
from functools import lru_cache

import datasets
import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "heart", "arrow", "bar")
COUNTS = {"train": 8192, "test": 2048}
SUPERSAMPLING = 4  # shapes are drawn this many times larger, then averaged: smooth outlines at 32 px
MOST_COMPETITORS = 2  # shapes beside the labelled one at a(x) = 1; with four, edge density tells a(x)
RADIUS_CLEAR, RADIUS_CLUTTERED = 0.34, 0.18  # of the labelled shape, in units of the image's side
RADIUS_COMPETITOR = (0.12, 0.16)
TEXTURE = 6.0  # deviation of the background in grey levels; above 10, views are matched by it


def _regular(corners: int, inner: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """Vertices (corners, 2) on the unit circle, every second one at radius `inner` (a star)."""
    angle = 2 * math.pi * np.arange(corners) / corners + turn
    radius = np.where(np.arange(corners) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


@lru_cache
def _outline(name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Vertices (n, 2) of a shape of about unit radius, and those of its hole if it has one."""
    disc = _regular(40)
    if name == "disc":
        return 0.86 * disc, None
    if name == "square":
        return _regular(4, turn=math.pi / 4), None
    if name == "triangle":
        return _regular(3), None
    if name == "star":
        return _regular(10, inner=0.42), None
    if name == "cross":
        w = 0.3
        quarter, turn = np.array([[w, -1], [w, -w], [1, -w]]), np.array([[0, -1], [1, 0]])
        return np.concatenate([quarter @ np.linalg.matrix_power(turn, i).T for i in range(4)]), None
    if name == "ring":
        return 0.92 * disc, 0.52 * disc
    if name == "crescent":
        return 0.92 * disc, 0.72 * disc + np.array([0.46, -0.1])
    if name == "heart":
        s = 2 * math.pi * np.arange(48) / 48
        y = 13 * np.cos(s) - 5 * np.cos(2 * s) - 2 * np.cos(3 * s) - np.cos(4 * s)
        return np.stack([16 * np.sin(s) ** 3, -y - 2], axis=1) / 16, None
    if name == "arrow":
        return np.array(
            [[0, -1], [0.8, -0.1], [0.3, -0.1], [0.3, 1], [-0.3, 1], [-0.3, -0.1], [-0.8, -0.1]]
        ), None
    return np.array([[-0.28, -1], [0.28, -1], [0.28, 1], [-0.28, 1]]), None  # bar


def _draw(canvas: ImageDraw.ImageDraw, name: str, centre: np.ndarray, radius: float, turn: float) -> None:
    """Paint one shape in white (and its hole in black) on the mask; `centre` and `radius` in mask pixels."""
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    for points, ink in zip(_outline(name), (255, 0), strict=True):
        if points is not None:
            canvas.polygon([tuple(p) for p in centre + radius * points @ rotation.T], fill=ink)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth noise (size, size) of unit deviation: what a plain wall looks like close up."""
    coarse = rng.standard_normal((size // 4 + 2, size // 4 + 2)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    noise = smooth / (smooth.std() + 1e-6) + 0.7 * rng.standard_normal((size, size))
    return noise / noise.std()


def _place(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
    """Centres (n, 2) in [0, 1]² that keep the shapes inside and, as far as 60 tries allow, apart."""
    best, best_overlap = np.empty((0, 2)), math.inf
    for _ in range(60):
        centres = radii[:, None] + rng.random((len(radii), 2)) * (1 - 2 * radii[:, None])
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) - (radii[:, None] + radii[None])
        np.fill_diagonal(gaps, math.inf)
        overlap = max(0.0, -float(gaps.min()))
        if overlap < best_overlap:
            best, best_overlap = centres, overlap
        if overlap == 0:
            break
    return best


def draw_image(rng: np.random.Generator, label: int, ambiguity: float, size: int) -> Image.Image:
    """One RGB image (size, size): the shape `label`, cluttered by `ambiguity` in [0, 1]."""
    competitors = int(MOST_COMPETITORS * ambiguity + rng.random())  # rounded at random: right on average
    radius = RADIUS_CLEAR + (RADIUS_CLUTTERED - RADIUS_CLEAR) * ambiguity
    radii = np.concatenate([[radius], rng.uniform(*RADIUS_COMPETITOR, competitors)])
    names = [CLASSES[label]]
    names += list(rng.choice([c for c in CLASSES if c != CLASSES[label]], competitors, replace=False))
    side = size * SUPERSAMPLING
    mask = Image.new("L", (side, side))
    canvas = ImageDraw.Draw(mask)
    for name, centre, r in zip(names, _place(rng, radii), radii, strict=True):
        _draw(canvas, name, centre * side, r * side, rng.uniform(-0.5, 0.5))
    coverage = np.asarray(mask.resize((size, size), Image.Resampling.BOX), dtype=np.float64) / 255
    contrast = rng.uniform(60, 140)
    grey = 128 - contrast / 2 + rng.uniform(-12, 12) + TEXTURE * _texture(rng, size) + contrast * coverage
    pixels = np.repeat(grey[..., None], 3, axis=2)
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def shapes(
    split: str = "train", *, size: int = 32, count: int | None = None, seed: int = 0
) -> datasets.Dataset:
    """The embedded data set as a Hugging Face `Dataset` with columns `image`, `label` and `ambiguity`.

    Args:
        split: "train" (8,192 images by default) or "test" (2,048); they share no image.
        size: height and width in pixels.
        count: how many images; image i is the same whatever the count.
        seed: everything follows from (seed, split, i).

    Raises:
        ValueError: for an unknown split, a size under 8 pixels or a count under 1.
    """
    if split not in COUNTS:
        raise ValueError(f"shapes has the splits {', '.join(COUNTS)}, not {split!r}")
    count = COUNTS[split] if count is None else count
    if size < 8 or count < 1:
        raise ValueError(f"shapes needs size >= 8 and count >= 1, not size={size}, count={count}")
    columns: dict[str, list] = {"image": [], "label": [], "ambiguity": []}
    for i in range(count):
        rng = np.random.default_rng([seed, list(COUNTS).index(split), i])
        label, ambiguity = int(rng.integers(len(CLASSES))), float(np.float32(rng.random()))
        columns["image"].append(draw_image(rng, label, ambiguity, size))
        columns["label"].append(label)
        columns["ambiguity"].append(ambiguity)
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=list(CLASSES)),
        ambiguity=datasets.Value("float32"),
    )
    return datasets.Dataset.from_dict(columns, features=features)
