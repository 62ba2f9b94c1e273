"""Every pixel mode and depth, against values worked out by hand."""

import struct

import numpy as np
import pytest
from PIL import Image

from vissl_zoo.data.decode import decode, to_rgb

WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


def pixels(image: Image.Image) -> list[tuple[int, int, int]]:
    assert image.mode == "RGB"
    return [tuple(p) for p in np.asarray(image).reshape(-1, 3).tolist()]


def grey(image: Image.Image) -> list[int]:
    values = np.asarray(image)
    assert (values == values[..., :1]).all()
    return values[..., 0].reshape(-1).tolist()


# v · 255 / 65535 = v / 257: 128 is just below a half, 129 just above.
RAMP_16 = [0, 128, 129, 257, 32767, 32768, 65278, 65535]
RAMP_8 = [0, 0, 1, 1, 127, 128, 254, 255]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_files_are_scaled_not_clipped(encode, file_format):
    if file_format == "PPM":  # by hand: Pillow 10 does not write it
        encoded = b"P5 8 1 65535\n" + np.array(RAMP_16, dtype=">u2").tobytes()
    else:
        encoded = encode(np.array([RAMP_16], dtype=np.uint16), file_format)
    assert grey(decode(encoded)[0]) == RAMP_8


@pytest.mark.parametrize("mode, dtype", [("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4")])
def test_16_bit_modes_are_scaled_not_clipped(mode, dtype):
    image = Image.frombytes(mode, (8, 1), np.array(RAMP_16, dtype=dtype).tobytes())
    assert grey(to_rgb(image)) == RAMP_8


def test_big_endian_16_bit_tiff():
    # Written by hand: Pillow saves 16-bit TIFF in one byte order only.
    tags = [
        (256, 3, 8),
        (257, 3, 1),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (278, 3, 1),
        (279, 4, 16),
    ]
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + struct.pack(">HH" if kind == 3 else ">I", *((v, 0) if kind == 3 else (v,)))
        for tag, kind, v in tags
    )
    head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + struct.pack(">I", 0)
    encoded = head.ljust(200, b"\0") + np.array(RAMP_16, dtype=">u2").tobytes()
    assert grey(decode(encoded)[0]) == RAMP_8


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.float32([[0, 0.5, 1.0, -1.0, np.nan, np.inf]]), [0, 128, 255, 0, 0, 0]),
        (np.float32([[0, 1.0, 100.0, 255.0]]), [0, 1, 100, 255]),
        (np.float32([[0, 257.0, 65535.0]]), [0, 1, 255]),
        (np.float32([[0, 500_000.0, 1_000_000.0]]), [0, 128, 255]),
        (np.int32([[0, 500_000, 1_000_000, -7]]), [0, 128, 255, 0]),
        (np.int32([[0, 257, 514]]), [0, 1, 2]),
        (np.float32([[0.0, 0.0]]), [0, 0]),
    ],
)
def test_float_and_32_bit_grey(values, expected):
    assert grey(to_rgb(Image.fromarray(values))) == expected


def test_8_bit_grey_and_1_bit(encode):
    assert grey(decode(encode(np.array([[0, 7, 255]], dtype=np.uint8)))[0]) == [0, 7, 255]
    assert grey(decode(encode(np.array([[True, False]])))[0]) == [255, 0]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_alpha_is_composited_over_white(encode, file_format):
    # alpha 0 hides the colour; 51/255 = 1/5 of it: 255·4/5 + 0·1/5 = 204; 255 shows it
    rgba = np.array([[[9, 9, 9, 0], [255, 0, 0, 51], [1, 2, 3, 255]]], dtype=np.uint8)
    assert pixels(decode(encode(rgba, file_format))[0]) == [WHITE, (255, 204, 204), (1, 2, 3)]


def test_grey_with_alpha(encode):
    image = Image.frombytes("LA", (3, 1), bytes([10, 0, 0, 51, 10, 255]))
    assert grey(decode(encode(image))[0]) == [255, 204, 10]


def test_premultiplied_alpha():
    image = Image.frombytes("RGBa", (2, 1), bytes([0, 0, 0, 0, 51, 0, 0, 51]))
    assert pixels(to_rgb(image)) == [WHITE, (255, 204, 204)]


def palette_image(mode: str = "P") -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_palette(encode, file_format):
    green, blue = (0, 255, 0), (0, 0, 255)
    assert pixels(decode(encode(palette_image(), file_format))[0]) == [RED, green, blue]
    transparent = encode(palette_image(), file_format, transparency=1)
    assert pixels(decode(transparent)[0]) == [RED, WHITE, blue]


def test_palette_with_an_alpha_for_each_entry(encode):
    transparent = encode(palette_image(), transparency=bytes([51, 0, 255]))
    assert pixels(decode(transparent)[0]) == [(255, 204, 204), WHITE, (0, 0, 255)]


def test_palette_with_alpha_channel():
    image = palette_image().convert("PA")
    image.putalpha(Image.frombytes("L", (3, 1), bytes([0, 255, 255])))
    assert pixels(to_rgb(image)) == [WHITE, (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    "image, key, expected",
    [
        (Image.frombytes("L", (2, 1), bytes([7, 8])), 7, [WHITE, (8, 8, 8)]),
        (Image.frombytes("RGB", (2, 1), bytes([1, 2, 3, 4, 5, 6])), (1, 2, 3), [WHITE, (4, 5, 6)]),
    ],
)
def test_a_transparent_colour(encode, image, key, expected):
    assert pixels(decode(encode(image, transparency=key))[0]) == expected


INKS = {"red": ((0, 255, 255, 0), RED), "black": ((0, 0, 0, 255), BLACK), "paper": ((0, 0, 0, 0), WHITE)}


@pytest.mark.parametrize("ink", INKS)
def test_cmyk(encode, ink):
    cmyk, expected = INKS[ink]
    image = Image.new("CMYK", (16, 16), cmyk)
    assert set(pixels(decode(encode(image, "TIFF"))[0])) == {expected}
    jpeg = encode(image, "JPEG", quality=100)
    assert b"Adobe" in jpeg  # the marker of files that store the inks inverted
    assert np.abs(np.asarray(decode(jpeg)[0]).astype(int) - expected).max() <= 2


def test_a_lab_tiff(encode):
    image = Image.frombytes("LAB", (1, 1), bytes([255, 0, 0]))  # L* = 100, a* = b* = 0
    assert min(pixels(decode(encode(image, "TIFF"))[0])[0]) >= 250
