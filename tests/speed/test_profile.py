"""The profile's file holds its numbers and its picture draws them."""

import json

import pytest
from PIL import Image

from vissl_zoo.speed import StepProfile
from vissl_zoo.speed.profile import PARTS

SECONDS = (0.001, 0.004, 0.03, 0.005, 0.05, 0.006, 0.004)
PROFILE = StepProfile(dict(zip(PARTS, SECONDS, strict=True)), 0.1, 0.092, 20, 128, "cpu", "bf16")


def test_ratio_and_sentence():
    assert PROFILE.ratio == pytest.approx(0.92)
    assert str(PROFILE) == (
        "100.0 ms a step (backward 50%, backbone, forward 30%, optimizer 6%), 0.92 of ready-made views' speed"
    )


def test_files(tmp_path):
    picture = PROFILE.write(tmp_path)
    assert picture == tmp_path / "profile.png"
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["parts"] == PROFILE.parts
    assert (found["ratio"], found["precision"]) == (PROFILE.ratio, "bf16")
    with Image.open(picture) as image:
        assert min(image.size) > 300


def test_the_bar_is_cut_in_proportion(tmp_path):
    """Measured on the picture: backward's colour is five thirds as wide as that of the backbone's forward."""
    with Image.open(PROFILE.write(tmp_path)) as image:
        row = [image.convert("RGB").getpixel((x, 90)) for x in range(image.width)]  # a row of the upper bar
    widths = {colour: row.count(colour) for colour in ((0xFC, 0x8D, 0x62), (0x66, 0xC2, 0xA5))}
    backward, forward = widths.values()
    assert backward / forward == pytest.approx(5 / 3, rel=0.03)
