"""The squares that threads decode are those that `central_crop` sees, in order, with bad images marked."""

import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from vissl_zoo.data import BadImage, open_images
from vissl_zoo.evaluation import squares as module
from vissl_zoo.evaluation.features import IMAGENET, central_crop
from vissl_zoo.evaluation.represent import normalise
from vissl_zoo.evaluation.squares import decoded, square_box


def rough(height, width, seed=0):
    """uint8 (height, width, 3) with edges and fine detail."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[
        :height, :width
    ]
    return np.clip(0.7 * coarse + 0.3 * rng.integers(0, 256, (height, width, 3)), 0, 255).astype(np.uint8)


def jpeg(pixels, quality=95):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture
def table_of(write_split, tmp_path):
    return lambda images: open_images(write_split(tmp_path / "train.parquet", images))


SHAPES = [
    (375, 500, 224),
    (500, 333, 96),
    (100, 130, 64),
    (32, 32, 32),
    (40, 44, 32),
    (20, 50, 32),
    (16, 16, 32),
]


@pytest.mark.parametrize("height, width, size", SHAPES)
def test_the_square_is_the_central_crop_of_the_original(table_of, height, width, size):
    """Equal to `central_crop` of the whole image but for rounding to whole grey levels."""
    pixels = rough(height, width)
    (found,) = decoded(table_of([pixels]), [np.array([0])], size)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = central_crop(image, torch.tensor([[height, width]]), size)
    off = (
        (normalise(found.pixels, torch.device("cpu"), IMAGENET) - expected).abs() * 0.226 * 255
    )  # grey levels
    inside = off[..., 2:-2, 2:-2]
    assert inside.max() < 1.6
    assert off.mean() < 0.6
    assert found.sizes.tolist() == [[height, width]]
    if (height, width) == (size, size):
        assert off.max() < 1e-3


def test_a_large_jpeg_decoded_at_a_fraction_shows_the_same(table_of):
    pixels = np.asarray(Image.fromarray(rough(90, 120)).resize((1600, 1200), Image.Resampling.BICUBIC))
    (found,) = decoded(table_of([jpeg(pixels)]), [np.array([0])], 96)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    expected = central_crop(image, torch.tensor([[1200, 1600]]), 96)
    off = (normalise(found.pixels, torch.device("cpu"), IMAGENET) - expected).abs() * 0.226 * 255
    assert off.mean() < 2
    shifted = central_crop(
        image.roll(34, 3), torch.tensor([[1200, 1600]]), 96
    )  # the control: two pixels of the crop
    assert (shifted - expected).abs().mean() * 0.226 * 255 > 6
    assert found.sizes.tolist() == [[1200, 1600]]


@pytest.mark.parametrize(
    "box, size", [((0, 0, 32, 32), 32), ((62.5 + 23.4375, 23.4375, 414.0625, 351.5625), 224)]
)
def test_the_box_by_hand(box, size):
    assert square_box(*((32, 32) if size == 32 else (375, 500)), size) == pytest.approx(box)


@pytest.mark.parametrize("workers", [1, 3])
def test_order_and_bad_images(table_of, workers):
    images = [np.full((16, 16, 3), 10 * i, np.uint8) for i in range(20)]
    images[7] = b"no image"
    table, rows = table_of(images), np.random.default_rng(0).permutation(20)
    batches = [rows[:9], rows[9:18], rows[18:]]
    found = list(decoded(table, batches, 16, workers=workers, canvas=(24, 20)))
    assert [len(f.rows) for f in found] == [9, 9, 2]
    for squares in found:
        for slot, row in enumerate(squares.rows):
            level = 0 if row == 7 else 10 * row
            assert (squares.pixels[slot] == level).all()
            assert (squares.canvases[slot] == level).all()
            assert squares.canvases[slot].shape == (3, 24, 20)
            assert isinstance(squares.errors[slot], BadImage) == (row == 7)
            assert squares.sizes[slot].tolist() == ([0, 0] if row == 7 else [16, 16])
    assert list(decoded(table, [], 16)) == []


def test_no_more_is_decoded_ahead_than_the_bound(monkeypatch):
    """And decoding goes on while the caller works."""
    read = []

    class Table:
        def read_with_size(self, row, shape=None):
            read.append(row)
            return Image.new("RGB", (8, 8)), (8, 8)

    batches = np.arange(200).reshape(100, 2)
    stream = decoded(Table(), list(batches), 8, workers=2)
    next(stream)
    time.sleep(0.1)
    assert 2 < len(read) <= 2 * (1 + module._AHEAD)
    stream.close()
    time.sleep(0.05)
    assert len(read) < 20
    assert not any("ThreadPool" in t.name for t in threading.enumerate() if t.daemon)


def test_an_error_that_is_no_bad_image_is_not_swallowed():
    class Table:
        def read_with_size(self, row, shape=None):
            raise MemoryError

    with pytest.raises(MemoryError):
        list(decoded(Table(), [np.arange(3)], 8))
