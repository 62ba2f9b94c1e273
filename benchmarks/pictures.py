"""Generated pictures with the spectrum of photographs, so that every benchmark runs anywhere."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

PHOTO_SIZES = ((480, 640), (640, 480), (375, 500), (768, 1024), (600, 600))  # height, width


def photos(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Images uint8 (count, height, width, 3): coloured noise whose amplitude falls as 1/f, as that of photos does."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    white = rng.standard_normal((count, 3, height, width), dtype=np.float32)
    smooth = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    smooth /= smooth.std(axis=(2, 3), keepdims=True)
    smooth[:, 1:] = 0.6 * smooth[:, 1:] + 0.6 * smooth[:, :1]  # channels of a photo resemble each other
    return np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def encode(image: np.ndarray, quality: int = 90) -> bytes:
    """An image uint8 (H, W, 3) as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_folder(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder of `count` JPEGs in the `PHOTO_SIZES` by turns."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = PHOTO_SIZES[number % len(PHOTO_SIZES)]
        image = photos(rng, 1, height, width)[0]
        (folder / f"{number:05}.jpg").write_bytes(encode(image))
    return folder


def write_parquet(folder: Path, count: int, side: int, seed: int = 0) -> Path:
    """A folder with train.parquet: `count` JPEGs of side × side pixels in the Hub's image format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < count:
        images = photos(rng, min(1000, count - len(rows)), side, side)
        rows += [{"bytes": encode(image), "path": None} for image in images]
    features = datasets.Features(image=datasets.Image(decode=False))
    table = datasets.Dataset.from_dict({"image": rows}, features=features)
    table.cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
    return folder
