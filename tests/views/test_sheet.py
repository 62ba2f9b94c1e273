import re

import matplotlib.image
import numpy as np
import pytest
import torch
from PIL import Image

from vissl_zoo.views import ViewPipeline
from vissl_zoo.views import __main__ as command
from vissl_zoo.views.sheet import STANDARD, describe, draw_views, file_formats, true_colours

PLAIN = {"flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0}


@pytest.fixture
def photos(tmp_path):
    """A folder of six images of several sizes, each with a gradient across and a colour of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for n, (height, width) in enumerate([(60, 80), (80, 60), (64, 64), (40, 90), (90, 40), (70, 50)]):
        across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
        picture = np.stack([across, np.full((height, width), 40 * n), across[:, ::-1]], -1)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"photo_{n}.png")
    return folder


def run(photos, *arguments: str, output: str = "views.png") -> tuple[int, object]:
    path = photos.parent / output
    size = () if "--image-size" in arguments else ("--image-size", "32", "--low-size", "12")
    arguments = ("--data.path", photos, "--output", path, *size, *arguments)
    return command.main([str(a) for a in arguments]), path


@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_suffix_gives_the_format(photos, capsys, suffix, start):
    code, path = run(photos, "--images", "2", output=f"views.{suffix}")
    assert code == 0
    assert path.read_bytes().startswith(start)
    assert capsys.readouterr().out == f"views: {path}\n"


def test_views_are_shown_in_their_true_colours():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    pipeline = ViewPipeline(16, scale=(1.0, 1.0), ratio=(1.0, 1.0), **PLAIN)
    (view, _) = pipeline(images, torch.tensor([[16, 16]] * 2), step=0)
    np.testing.assert_array_equal(true_colours(view, pipeline), images.permute(0, 2, 3, 1))


def test_the_page_holds_the_views_at_true_relative_size(tmp_path):
    """Every view is drawn on whole multiples of its pixels: one of plain colour can be counted in the file."""
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images[:, 0] = 255  # pure red, which nothing else on the page is
    original = Image.new("RGB", (32, 32), "blue")
    pipeline = ViewPipeline(32, low=3, low_size=16, **PLAIN)
    draw_views([original], ["red"], images, pipeline, tmp_path / "a.png")
    page = (matplotlib.image.imread(tmp_path / "a.png")[..., :3] * 255).round().astype(int)
    red = (page == [255, 0, 0]).all(-1)
    side = 32 * 10  # pixels of a standard view
    expected = 2 * side**2 + 3 * (side // 2) ** 2
    assert 0.9 * expected < red.sum() < expected  # frames and numbers cover a little
    columns = np.flatnonzero(red.sum(0) > side / 3)
    blocks = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    np.testing.assert_allclose([len(block) for block in blocks], [side, side, side / 2, side / 2], atol=8)


@pytest.mark.parametrize("low", ["0", "6"])
def test_any_number_of_low_resolution_views(photos, low):
    code, path = run(photos, "--images", "1", "--low", low)
    assert code == 0
    width, height = Image.open(path).size
    wider, _ = Image.open(run(photos, "--images", "1", "--low", str(int(low) + 12))[1]).size
    assert wider > width > height


def test_rows_are_images_and_the_seed_decides(photos):
    def pixels(*arguments):
        return np.asarray(Image.open(run(photos, *arguments)[1]).convert("RGB"))

    one, two = pixels("--images", "1"), pixels("--images", "2")
    assert 1.7 < two.shape[0] / one.shape[0] < 2
    again, other = pixels("--images", "2"), pixels("--images", "2", "--seed", "1")
    np.testing.assert_array_equal(two, again)
    assert two.shape != other.shape or (two != other).any()


def test_crops_are_outlined_where_they_lie(tmp_path):
    """One crop that is the whole image: its outline is the border of the original."""
    original = Image.new("RGB", (50, 50), "white")
    images = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    pipeline = ViewPipeline(32, standard=1, scale=(1.0, 1.0), ratio=(1.0, 1.0), **PLAIN)
    draw_views([original], ["white"], images, pipeline, tmp_path / "a.png")
    page = (matplotlib.image.imread(tmp_path / "a.png")[..., :3] * 255).round().astype(int)
    color = [int(STANDARD[0][i : i + 2], 16) for i in (1, 3, 5)]
    lines = (np.abs(page - color).max(-1) <= 8).sum(0)
    tall = np.flatnonzero(lines > 250)  # the vertical edges: of the outline, then of the view's frame
    edges = tall[np.flatnonzero(np.diff(tall, prepend=-9) > 1)]
    assert len(edges) == 4
    assert abs(edges[1] - edges[0] - 320) <= 4
    assert abs(edges[3] - edges[2] - 320) <= 4


def test_a_view_is_described_by_what_was_drawn():
    pipeline = ViewPipeline(32, flip=1.0, jitter=1.0, grayscale=1.0, blur=1.0, sigma=(1.5, 1.5))
    size, box = torch.tensor([100, 50]), torch.tensor([0, 0, 50, 25])
    assert describe(pipeline.draw(1, 0), box, size, 0, 0) == "25%, flip, jitter, gray, blur σ 1.5"
    assert describe(ViewPipeline(32, **PLAIN).draw(1, 0), box, size, 1, 0) == "25%"


def test_corrupt_images_are_passed_over(photos):
    for n in range(5):
        (photos / f"photo_{n}.png").write_bytes(b"rubbish")
    assert run(photos, "--images", "1")[0] == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--images", "0"], "--images must be from 1 to 100, not 0"),
        (["--images", "7"], "--images 7 is more than the 6 readable images of "),
        (["--standard", "0"], "--standard must be from 1 to 100, not 0"),
        (["--low", "-1"], "--low must be from 0 to 100, not -1"),
        (["--low-size", "32"], "--low-size 32 must be less than --image-size 32"),
        (["--image-size", "0", "--low", "0"], "--image-size must be at least 1"),
        (["--scale", "0.5", "0.2"], "--scale must be two numbers in"),
        (["--low-scale", "0", "0.2"], "--low-scale must be two numbers in"),
        (["--blur", "2"], "--blur must be a probability"),
        (["--seed", "-1"], "--seed must lie in"),
        (["--data.split", "extra"], 'no split "extra"'),
        (["--output", "views.doc"], "--output views.doc: the suffix must be one of "),
        (["--output", "/nowhere/views.png"], "--output /nowhere/views.png: No such file or directory"),
        (["--data.path", "/nowhere"], "/nowhere: neither a file nor a folder here"),
        (["--imags", "3"], "perhaps you meant --images (see python -m vissl_zoo.views --help)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(photos, capsys, arguments, message):
    assert run(photos, *arguments)[0] == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m vissl_zoo.views: ")
    assert err.count("\n") == 1
    assert message in err


def test_every_flag_has_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    for flag in ("--data.path", "--output", "--images", "--low-scale", "--sigma", "--ratio", "--hue"):
        assert text.split().count(flag) == 1
    assert "Area of a low-resolution view's crop, as a fraction of the image's." in text


def test_formats():
    assert {"png", "pdf", "svg"} <= set(file_formats())
