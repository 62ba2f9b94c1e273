"""Files that are not what they are called, and files of an odd make: one line, or the picture, and no other program."""

import contextlib
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vissl_zoo.data import decode as decode_module
from vissl_zoo.data.decode import decode, open_image
from vissl_zoo.errors import UserError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\x00\x00" + struct.pack("<4hH", 0, 0, 9, 9, 72) + bytes(40)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.eps"])
def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch, name):
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/fired\necho 10\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / name).write_bytes(EPS)
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # nor by what an earlier test has found out
    with pytest.raises(UserError, match="not an image that Pillow can read"):
        open_image(tmp_path / name)
    assert not (tmp_path / "fired").exists()
    with contextlib.suppress(Exception):  # the trap works: Pillow alone springs it
        Image.open(tmp_path / name).load()
    assert (tmp_path / "fired").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4\n%%EOF",
        b"\0\1\0\0" + bytes(60),
        WMF,
        b"",
        b"\0",
    ],
    ids=["svg", "pdf", "font", "wmf", "empty", "one byte"],
)
def test_what_is_no_picture(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match="not an image that Pillow can read"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("file_format", ["PCX", "IM", "MSP", "SPIDER"])
def test_formats_of_no_photo_are_not_opened(encode, file_format):
    image = Image.new({"SPIDER": "F", "MSP": "1"}.get(file_format, "L"), (8, 8))
    with pytest.raises(Image.UnidentifiedImageError):
        decode(encode(image, file_format))


def test_every_format_of_the_list_is_one_that_pillow_has():
    Image.init()
    assert set(decode_module._RASTER_FORMATS) - {"HEIF", "AVIF"} <= Image.OPEN.keys()


def test_pillow_heif_is_used_where_it_is_installed(monkeypatch):
    called = []
    plugin = SimpleNamespace(register_heif_opener=lambda: called.append(1))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", plugin)
        decode_module._register_formats.cache_clear()
        for _ in range(2):
            with pytest.raises(Image.UnidentifiedImageError):
                decode(b"rubbish")
    decode_module._register_formats.cache_clear()
    assert called == [1]


def test_a_truncated_progressive_jpeg(encode):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = encode(noise, "JPEG", progressive=True)
    assert decode(encoded)[1] == (64, 64)
    with pytest.raises(OSError):
        decode(encoded[: len(encoded) // 2])


def test_a_broken_colour_profile_does_not_matter(encode):
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    for file_format in ("PNG", "WEBP", "TIFF"):
        image, _ = decode(encode(red, file_format, icc_profile=b"broken"))
        assert np.abs(np.asarray(image, dtype=int) - (255, 0, 0)).max() <= 2


def test_the_first_picture_of_an_mpo(encode):
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 0)))
    image, _ = decode(encode(first, "MPO", save_all=True, append_images=[second]))
    assert np.abs(np.asarray(image, dtype=int) - (255, 0, 0)).max() <= 2


def test_one_row_of_30_000_pixels(encode):
    assert decode(encode(np.zeros((1, 30_000), dtype=np.uint8)))[1] == (1, 30_000)


@pytest.mark.parametrize(
    "declared, expected", [(4095, [0, 128, 255]), (None, [0, 8, 16]), (2000, [0, 8, 16])]
)
def test_12_bits_in_16_are_stretched_by_what_the_file_declares(encode, declared, expected):
    values = np.array([[0, 2048, 4095]], dtype=np.uint16)
    tags = {} if declared is None else {"tiffinfo": {281: declared}}
    image, _ = decode(encode(values, "TIFF", **tags))
    assert np.asarray(image)[0, :, 0].tolist() == expected
