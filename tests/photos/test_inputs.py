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


def test_a_shard_is_a_parquet_file_where_there_are_so_many(folder, write_split):
    counts = {"a/0.parquet": 3, "a/1.parquet": 5, "b/0.parquet": 1}
    for name, count in counts.items():
        write_split(folder / "tables" / name, [np.full((4, 4, 3), i, np.uint8) for i in range(count)])
    inputs = find_inputs(["tables/a", "tables/b"])
    assert inputs.file_count == 3
    shards = [inputs.shard(number, 3) for number in (1, 2, 3)]
    assert [len(shard) for shard in shards] == [3, 5, 1]
    assert shards[1].parts[0].paths == [f"tables/a#{row}" for row in range(3, 8)]
    assert shards[1].parts[0].table.read(4).getpixel((0, 0)) == (4, 4, 4)
    assert [len(inputs.shard(number, 2)) for number in (1, 2)] == [4, 5]
    assert find_inputs(["tables", "photos"]).file_count == 0
    assert find_inputs(["tables/a"], "train[:4]").file_count == 0


def test_a_shard_of_files_is_sent_without_the_others(folder):
    whole = find_inputs(["photos"])
    sent = pickle.loads(pickle.dumps(whole.shard(2, 2)))
    assert sent.parts[0].paths == ["photos/a/x.png"]
    assert b"c#1.png" not in pickle.dumps(sent)
    assert sent.parts[0].table.read(0).tobytes() == read_image("photos/a/x.png").tobytes()


def test_urls_of_images_are_their_names(folder):
    inputs = find_inputs([f"file://{folder}/photos", "photos/c#1.png", f"file://{folder}/photos/a/x.png"])
    (part,) = inputs.parts
    names = [f"file://{folder}/photos/{name}" for name in ("a/b/y.png", "a/x.png", "c#1.png")]
    assert part.paths == [*names, "photos/c#1.png"]
    assert inputs.repeated == 1
    assert (part.stamps != 0).all()
    assert read_image(names[1]).tobytes() == part.table.read(1).tobytes()
    sent = inputs.shard(1, 2).parts[0]
    assert [len(sent.paths), sent.table.read(0).size] == [2, (5, 3)]
    Image.new("RGB", (50, 50)).save("photos/a/x.png")
    after = find_inputs([f"file://{folder}/photos"]).parts[0].stamps
    assert (after == part.stamps[:3]).tolist() == [True, False, True]


def test_rows_of_a_url_open_again(folder, shapes_folder):
    url = f"file://{shapes_folder}/test.parquet"
    (part,) = find_inputs([url]).parts
    assert part.paths[7] == f"{url}#7"
    assert read_image(part.paths[7]).tobytes() == part.table.read(7).tobytes()
