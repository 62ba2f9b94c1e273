import numpy as np
import pytest
from PIL import Image

from vissl_zoo.data import canvas_size, open_images
from vissl_zoo.data.canvas import read_to_canvas


@pytest.fixture
def table(write_images, picture):
    """table((height, width), ...) of images in that order."""

    def table(*sizes):
        files = {f"{n:03}.png": picture(n, *size) for n, size in enumerate(sizes)}
        return open_images(write_images(files))

    return table


@pytest.mark.parametrize(
    "sizes, image_size, canvas",
    [
        ([(32, 32)] * 3, 32, (32, 32)),
        ([(32, 32)] * 3, 64, (32, 32)),  # smaller than the views: still no resampling
        ([(30, 48)] * 3, 32, (30, 48)),  # exactly 1.5
        ([(30, 49)] * 3, 32, (48, 48)),
        ([(32, 32), (32, 33)], 32, (48, 48)),
        ([(9, 9), (9, 8)], 30, (48, 48)),  # 45, rounded up to a multiple of 8
        ([(100, 100)], 64, (96, 96)),
        ([(32, 32)] * 64 + [(10, 12)], 32, (32, 32)),  # the first 64 decide
    ],
)
def test_canvas_size(table, sizes, image_size, canvas):
    assert canvas_size(table(*sizes), image_size) == canvas


def test_corrupt_images_have_no_say_in_it(write_images):
    assert canvas_size(open_images(write_images({"a.png": b"rubbish", "b.png": 1})), 8) == (6, 8)
    assert canvas_size(open_images(write_images({"b.png": b"rubbish"})), 8) == (16, 16)


def test_native_size_is_not_resampled(table):
    images = table((6, 8))
    pixels, size = read_to_canvas(images, 0, (6, 8))
    assert (pixels.dtype, pixels.shape, size) == (np.uint8, (3, 6, 8), (6, 8))
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(images.read(0)))


def test_other_sizes_are_resized_with_antialiasing(write_images, encode):
    # Lines one pixel wide average to grey; sampled without antialiasing they would give black or white.
    lines = np.zeros((64, 256), dtype=np.uint8)
    lines[:, ::2] = 255
    table = open_images(write_images({"a.png": encode(lines)}))
    pixels, size = read_to_canvas(table, 0, (16, 16))
    assert (pixels.shape, size) == ((3, 16, 16), (64, 256))
    assert np.abs(pixels.astype(int) - 127.5).max() <= 20


@pytest.mark.parametrize("scale", [2.5, 9])
def test_shortcuts_for_large_jpegs_are_invisible(write_images, encode, scale):
    y, x = np.mgrid[0 : 48 * scale, 0 : 64 * scale] / (8 * scale)
    scene = np.stack([127 + 120 * np.sin(f * x + y) for f in (1, 2, 3)], axis=-1).astype(np.uint8)
    table = open_images(write_images({"a.jpg": encode(scene, "JPEG", quality=95)}))
    pixels, _ = read_to_canvas(table, 0, (48, 64))
    exact = table.read(0).resize((64, 48), Image.Resampling.BICUBIC)
    assert np.abs(pixels.transpose(1, 2, 0).astype(int) - np.asarray(exact)).mean() < 1.5
