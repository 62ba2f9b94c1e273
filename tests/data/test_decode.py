"""Orientation, damage, sizes and reasons; pixel modes have a file of their own."""

import io
import pickle

import numpy as np
import pytest
from PIL import ExifTags, Image

from vissl_zoo.data import open_images
from vissl_zoo.data.decode import BadImage, decode, encoded_size, open_image, to_rgb, why_unreadable
from vissl_zoo.errors import UserError

BLACK, RED = (0, 0, 0), (255, 0, 0)


def pixels(image: Image.Image) -> list[tuple[int, int, int]]:
    assert image.mode == "RGB"
    return [tuple(p) for p in np.asarray(image).reshape(-1, 3).tolist()]


# What the camera must have done to the upright scene for each orientation, undone with NumPy.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(encode, orientation, file_format):
    stored = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    encoded = encode(stored, file_format, exif=exif, **options)
    image, size = decode(encoded)
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert size == encoded_size(encoded) == expected.shape[:2]
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), expected)  # not turned a second time


def test_orientation_6_shows_the_stored_left_column_at_the_top(encode):
    stored = np.zeros((2, 3, 3), dtype=np.uint8)
    stored[:, 0] = RED
    exif = Image.Exif()
    exif[0x0112] = 6
    image, size = decode(encode(stored, exif=exif))
    assert size == (3, 2)
    assert pixels(image)[:2] == [RED, RED]
    assert pixels(image)[2:] == [BLACK] * 4


def test_a_damaged_exif_block_costs_the_orientation_only(encode):
    encoded = encode(np.zeros((2, 3, 3), dtype=np.uint8), "JPEG", exif=b"Exif\0\0not a TIFF header")
    assert decode(encoded)[1] == encoded_size(encoded) == (2, 3)


def test_a_tag_that_cannot_be_written_does_not_keep_a_photo_from_being_turned(encode):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ISOSpeedRatings] = 100
    encoded = encode(np.zeros((2, 3, 3), dtype=np.uint8), "JPEG", exif=exif)
    image = Image.open(io.BytesIO(encoded))
    image.getexif()[ExifTags.Base.ISOSpeedRatings] = object()
    assert to_rgb(image).size == (2, 3)


def test_the_given_image_is_left_alone():
    image = Image.new("RGB", (3, 2), RED)
    exif = image.getexif()
    exif[0x0112] = 6
    result = to_rgb(image)
    result.paste(BLACK, (0, 0, 2, 3))
    assert result.size == (2, 3)
    assert (image.size, set(pixels(image)), image.getexif()[0x0112]) == ((3, 2), {RED}, 6)


def test_the_first_frame_of_an_animation(encode):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLACK)]
    for file_format in ("GIF", "WEBP", "PNG"):
        animated = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
        assert np.abs(np.asarray(decode(animated)[0]).astype(int) - RED).max() <= 2


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_a_truncated_file_is_an_error(encode, file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = encode(noise, file_format)
    assert decode(encoded)[1] == (64, 64)
    with pytest.raises(OSError):
        decode(encoded[: len(encoded) // 2])


def test_a_decompression_bomb_is_an_error(encode, monkeypatch):
    encoded = encode(np.zeros((50, 50), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        decode(encoded)


@pytest.mark.parametrize("orientation, size", [(1, (600, 1600)), (6, (1600, 600))])
def test_a_large_jpeg_is_decoded_at_a_fraction(encode, orientation, size):
    ramp = np.broadcast_to(np.linspace(0, 255, 1600, dtype=np.uint8), (600, 1600))
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(ramp, "JPEG", exif=exif, quality=95)
    shape = (64, 170) if orientation == 1 else (170, 64)
    reduced, original = decode(encoded, shape)
    full, _ = decode(encoded)
    assert original == size == (full.height, full.width)
    assert (reduced.height, reduced.width) == (size[0] // 4, size[1] // 4)  # 1/8 is less than 2 · shape
    expected = np.asarray(full.resize(reduced.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(reduced) - expected).max() <= 3


def test_a_small_jpeg_and_other_formats_are_decoded_in_full(encode):
    for file_format, side in (("JPEG", 120), ("PNG", 800)):
        encoded = encode(np.zeros((side, side), dtype=np.uint8), file_format)
        image, size = decode(encoded, (64, 64))
        assert size == (side, side) == image.size


def test_reasons_are_one_line_without_addresses(tmp_path):
    with pytest.raises(Exception) as caught:
        decode(b"not an image")
    assert why_unreadable(caught.value) == "not an image that Pillow can read"
    assert why_unreadable(OSError("two\nlines")) == "two lines"
    assert why_unreadable(EOFError()) == "EOFError"
    with pytest.raises(FileNotFoundError) as caught:
        decode("/nowhere/at/all.png")
    assert why_unreadable(caught.value) == "no such file"
    with pytest.raises(OSError) as caught:
        decode(tmp_path)
    assert why_unreadable(caught.value) == "a folder, not an image"


def test_paths_are_read_and_closed(tmp_path, encode):
    path = tmp_path / "a.png"
    path.write_bytes(encode(np.full((2, 3), 5, dtype=np.uint8)))
    image, size = decode(path)
    path.unlink()
    assert (pixels(image), size) == ([(5, 5, 5)] * 6, (2, 3))


def test_open_image_is_what_a_table_reads(write_images, encode):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    large = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    folder = write_images(
        {
            "16-bit.png": encode(large[..., 0].astype(np.uint16) * 257),
            "alpha.png": encode(np.dstack([large, large[..., 0]])),
            "cmyk.jpg": encode(Image.fromarray(large).convert("CMYK"), "JPEG"),
            "grey.jpg": encode(large[..., 0], "JPEG"),
            "palette.gif": encode(Image.fromarray(large).quantize(16), "GIF"),
            "turned.jpg": encode(large, "JPEG", exif=exif),
        }
    )
    table = open_images(folder)
    for row in range(len(table)):
        image = open_image(folder / table.name(row))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(table.read(row)))
        assert image.size == ((300, 500) if table.name(row) == "turned.jpg" else (500, 300))


def test_open_image_names_the_file_that_is_no_image(write_images):
    folder = write_images({"a.png": b"rubbish"})
    for name, why in {"a.png": "not an image that Pillow can read", "b.png": "no such file"}.items():
        with pytest.raises(UserError) as caught:
            open_image(folder / name)
        assert str(caught.value) == f"{folder / name}: {why}"


def test_bad_image_is_a_user_error_that_pickles():
    error = pickle.loads(pickle.dumps(BadImage(3, "a/b.png", "truncated")))
    assert isinstance(error, UserError)
    assert (error.row, error.name, error.reason, str(error)) == (
        3,
        "a/b.png",
        "truncated",
        "a/b.png: truncated",
    )
