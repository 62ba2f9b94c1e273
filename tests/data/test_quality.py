"""Photos that are damaged on purpose get their word, others get none, whatever their size."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vissl_zoo.data.decode import content_hash
from vissl_zoo.data.quality import issues, measure


@pytest.fixture(scope="module")
def photo():
    """photo(side): coarse forms with fine detail, as photos have."""
    rng = np.random.default_rng(0)
    layers = [rng.random((n, n, 3)) for n in (4, 16, 64)]

    def photo(side: int) -> Image.Image:
        parts = [
            np.asarray(Image.fromarray(np.uint8(255 * layer)).resize((side, side)), float) for layer in layers
        ]
        return Image.fromarray(np.uint8(sum(parts) / 3))

    return photo


def words(image: Image.Image) -> str:
    return issues(measure(image), *image.size)


@pytest.mark.parametrize("side", [64, 96, 300, 2000])
def test_a_good_photo_has_no_issue(photo, side):
    assert words(photo(side)) == ""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda i: i.point(lambda v: v * 0.15), "dark"),
        (lambda i: i.point(lambda v: 255 - (255 - v) * 0.15), "bright"),
        (lambda i: Image.new("RGB", i.size, (90, 120, 200)), "blank"),
        (lambda i: Image.new("RGB", i.size), "dark, blank"),
        (lambda i: i.point(lambda v: 128 + (v - 128) * 0.1), "blank"),
        (lambda i: i.point(lambda v: v * 20), "bright"),
        (lambda i: i.filter(ImageFilter.GaussianBlur(0.02 * i.width)), "blurred"),
        (lambda i: i.resize((i.width, i.width // 5)), "odd size"),
        (lambda i: i.resize((12, 14)), "odd size"),
    ],
)
def test_damage_gets_its_word(photo, damage, said):
    assert said in words(damage(photo(300)))


def test_measures_do_not_depend_on_the_size_of_a_photo(photo):
    np.testing.assert_allclose(measure(photo(1000)), measure(photo(500)), rtol=0.05)


def test_brightness_and_contrast_are_of_the_grey_levels():
    halves = Image.fromarray(np.uint8(np.repeat([[0, 255]], 96, axis=1).reshape(1, -1).repeat(96, 0)))
    found = measure(halves)
    assert found.brightness == pytest.approx(0.5, abs=1e-3)
    assert found.contrast == pytest.approx(0.5, abs=1e-3)


def test_only_the_box_is_measured(photo):
    wide = Image.new("RGB", (500, 300), "white")
    wide.paste(photo(300), (100, 0))
    np.testing.assert_allclose(measure(wide, (100, 0, 400, 300)), measure(photo(300)), rtol=1e-6)
    assert measure(wide).brightness > measure(photo(300)).brightness + 0.1


def test_a_box_between_pixels_and_at_the_edge(photo):
    image = photo(300)
    shifted = measure(image, (0.3, 0.2, 299.7, 300 + 1e-9))
    np.testing.assert_allclose(shifted, measure(image), rtol=1e-3)
    assert np.isfinite(measure(image, (10.2, 10.2, 10.6, 10.6))).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2, 3)])
def test_the_smallest_have_finite_measures(size):
    assert np.isfinite(measure(Image.new("RGB", size, "white"))).all()
    assert words(Image.new("RGB", size, "white")) == "bright, blank, odd size"


def test_nothing_known_is_nothing_said():
    assert (
        issues(measure(Image.new("L", (50, 50), 128))._replace(contrast=np.nan, sharpness=np.nan), 50, 50)
        == ""
    )


def test_the_hash_is_of_the_stored_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    assert content_hash(tmp_path / "a.png") == content_hash(b"abc") == "ba7816bf8f01cfea"
