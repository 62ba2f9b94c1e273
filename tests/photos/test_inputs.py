"""From paths to images, each under a name that opens it again."""

import pickle

import numpy as np
import pytest
from PIL import Image

from vissl_zoo.errors import UserError
from vissl_zoo.photos.inputs import find_inputs, read_image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a/x.png", "a/b/y.png", "c#1.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + i, 3), (i, 0, 0)).save(tmp_path / "photos" / name)
    return tmp_path


@pytest.mark.parametrize(
    "typed, found",
    [
        (["photos"], ["photos/a/b/y.png", "photos/a/x.png", "photos/c#1.png"]),
        (["photos/"], ["photos/a/b/y.png", "photos/a/x.png", "photos/c#1.png"]),
        (["./photos"], ["./photos/a/b/y.png", "./photos/a/x.png", "./photos/c#1.png"]),
        (["photos/a/*.png"], ["photos/a/x.png"]),
        (["photos/c#1.png", "photos/a/b"], ["photos/c#1.png", "photos/a/b/y.png"]),
        (["."], ["photos/a/b/y.png", "photos/a/x.png", "photos/c#1.png"]),
    ],
)
def test_names_are_as_typed_and_open_again(typed, found, folder):
    (part,) = find_inputs(typed).parts
    assert part.paths == found
    for row, path in enumerate(part.paths):
        assert part.table.read(row).tobytes() == read_image(path).tobytes()
    pickle.loads(pickle.dumps(part.table))  # as worker processes get it


def test_absolute_names_and_repeats(folder):
    inputs = find_inputs([str(folder / "photos"), "photos/a", "photos"])
    assert inputs.parts[0].paths[0] == str(folder / "photos/a/b/y.png")
    assert (len(inputs), inputs.repeated) == (3, 5)


def test_stamps_change_with_the_file(folder):
    before = find_inputs(["photos"]).parts[0].stamps
    Image.new("RGB", (50, 50)).save("photos/a/x.png")
    after = find_inputs(["photos"]).parts[0].stamps
    assert (before != after).tolist() == [False, True, False]


def test_rows_of_tables(folder, shapes_folder):
    (part,) = find_inputs([str(shapes_folder / "test.parquet")]).parts
    assert part.paths[7] == f"{shapes_folder}/test.parquet#7"
    assert read_image(part.paths[7]).tobytes() == part.table.read(7).tobytes()
    test, train = sorted(find_inputs([str(shapes_folder)]).parts, key=lambda p: len(p.paths))
    assert (len(test.paths), len(train.paths)) == (40, 120)
    assert read_image(train.paths[119]).tobytes() == train.table.read(119).tobytes()
    assert len(find_inputs([str(shapes_folder)], "test")) == 40


def test_a_relative_name_is_found_from_elsewhere(folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert np.asarray(read_image("photos/c#1.png", folder)).shape == (3, 6, 3)
    with pytest.raises(UserError, match="no such file"):
        read_image("photos/c#1.png")


def test_a_missing_data_set(folder):
    with pytest.raises(UserError, match="nobody/nothing"):
        find_inputs(["nobody/nothing"])
