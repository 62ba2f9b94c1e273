import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vissl_zoo.data.files import find_local_files
from vissl_zoo.errors import UserError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(path) -> dict[str, list[str]]:
    files = find_local_files(str(path))
    return {
        split: [f.relative_to(files.root).as_posix() for f in group] for split, group in files.splits.items()
    }


def classes(path) -> set:
    files = find_local_files(str(path))
    return {files.class_folder(file) for group in files.splits.values() for file in group}


def test_a_folder_of_images_is_one_split_whatever_the_files_are_called(tmp_path):
    touch(tmp_path, "train_station.jpg", "test.PNG", "b/c/x.webp", "notes.txt", ".hidden.png", ".git/y.png")
    touch(tmp_path, "__MACOSX/z.jpg")
    assert found(tmp_path) == {"train": ["b/c/x.webp", "test.PNG", "train_station.jpg"]}
    assert classes(tmp_path) == {None, "b"}


def test_top_folders_named_as_splits_are_splits(tmp_path):
    touch(tmp_path, "val/a/1.png", "train/a/1.png", "train/b/c/2.png", "unlabelled/3.png")
    assert found(tmp_path) == {
        "train": ["train/a/1.png", "train/b/c/2.png"],
        "validation": ["val/a/1.png"],
        "unlabeled": ["unlabelled/3.png"],
    }
    assert list(found(tmp_path)) == ["train", "validation", "unlabeled"]
    assert classes(tmp_path) == {"a", "b", None}


def test_train_among_other_vehicles_is_a_class(tmp_path):
    touch(tmp_path, "car/1.png", "train/2.png")
    assert found(tmp_path) == {"train": ["car/1.png", "train/2.png"]}
    assert classes(tmp_path) == {"car", "train"}


@pytest.mark.parametrize("other", ["cover.png", "extra/a/1.png"])
def test_splits_stay_splits_beside_other_images(tmp_path, other):
    touch(tmp_path, "train/a/1.png", "test/b/2.png", other)
    assert found(tmp_path) == {"train": ["train/a/1.png"], "test": ["test/b/2.png"]}
    assert classes(tmp_path) == {"a", "b"}
    files = find_local_files(str(tmp_path))
    assert files.outside == (tmp_path / other,)
    assert f"left out 1 files that lie outside of train, test, such as {other}" in files.notes[0]


def test_tables_with_images_win_over_stray_pictures_and_other_tables(tmp_path):
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "d.parquet")
    pq.write_table(pa.table({"path": ["x"], "kappa": [1.0]}), tmp_path / "scores.parquet")
    touch(tmp_path, "cover.png")
    assert found(tmp_path) == {"train": ["d.parquet"]}
    other, stray = find_local_files(str(tmp_path)).notes
    assert other.endswith("left out 1 files that hold no images, such as scores.parquet")
    assert stray.endswith(
        "left out 1 files that lie beside parquet files that hold images, such as cover.png"
    )


def test_results_of_this_package_are_no_data(tmp_path, caplog):
    touch(tmp_path, "a.png", "runs/demo/recipe.json", "runs/demo/metrics.jsonl", "runs/demo/report/b.png")
    touch(tmp_path, "e/metrics.json", "e/index.html", "e/knn.png", "c/compare.json", "c/compare.png")
    touch(tmp_path, "soup/recipe.json", "soup/c.png")  # of a cook
    assert found(tmp_path) == {"train": ["a.png", "soup/c.png"]}
    assert "left out 3 folders that hold results of vissl_zoo, such as c" in caplog.text
    assert found(tmp_path / "e") == {"train": ["knn.png"]}  # asked for by name


@pytest.mark.parametrize(
    "names, splits",
    [
        (["train.parquet", "test.parquet"], {"train": ["train.parquet"], "test": ["test.parquet"]}),
        (["one.parquet", "two.pq"], {"train": ["one.parquet", "two.pq"]}),
        (["test.parquet"], {"test": ["test.parquet"]}),
        (
            ["c/train/0.parquet", "c/val/0.parquet"],
            {"train": ["c/train/0.parquet"], "validation": ["c/val/0.parquet"]},
        ),
        (["train.parquet", "extra-0.parquet"], {"train": ["train.parquet"], "extra": ["extra-0.parquet"]}),
        (
            ["data/train-00000-of-00002-1a2b.parquet", "data/train-00001-of-00002-3c4d.parquet"],
            {"train": ["data/train-00000-of-00002-1a2b.parquet", "data/train-00001-of-00002-3c4d.parquet"]},
        ),
    ],
)
def test_parquet_files_are_split_by_name(tmp_path, names, splits):
    touch(tmp_path, *names)
    assert found(tmp_path) == splits


def test_one_file_is_the_split_train(tmp_path):
    touch(tmp_path, "test.parquet", "val.jpeg")
    assert found(tmp_path / "test.parquet") == {"train": ["test.parquet"]}
    assert found(tmp_path / "val.jpeg") == {"train": ["val.jpeg"]}


def test_globs(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "train.parquet", "test.parquet")
    assert found(tmp_path / "*" / "*.jpg") == {"train": ["a/1.jpg", "b/2.jpg"]}
    assert classes(tmp_path / "**" / "*.jpg") == {"a", "b"}
    assert found(tmp_path / "*.parquet") == {"train": ["train.parquet"], "test": ["test.parquet"]}
    with pytest.raises(UserError, match=r"\*\.gif: no file matches"):
        find_local_files(str(tmp_path / "*.gif"))


def test_a_folder_with_glob_characters_is_a_folder(tmp_path):
    touch(tmp_path / "a [1]*", "x.png")
    assert found(tmp_path / "a [1]*") == {"train": ["x.png"]}


def test_images_win_over_results_written_beside_them(tmp_path):
    touch(tmp_path, "a.jpg", "scores.parquet")
    assert found(tmp_path) == {"train": ["a.jpg"]}


def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "elsewhere", "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert found(tmp_path / "data") == {"train": ["a/1.png"]}


def test_nothing_there_is_none(tmp_path):
    assert find_local_files(str(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    "name, message",
    [("notes.txt", "notes.txt: not an image or a parquet file"), ("", "no image and no parquet file in it")],
)
def test_files_of_no_use_are_refused(tmp_path, name, message):
    touch(tmp_path, "notes.txt")
    with pytest.raises(UserError, match=message):
        find_local_files(str(tmp_path / name))


def test_missing_shards_are_an_error(tmp_path):
    touch(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
    with pytest.raises(UserError, match=r"train: 2 of 3 parquet shards"):
        find_local_files(str(tmp_path))
    assert len(found(tmp_path / "*.parquet")["train"]) == 2  # asked for by name, a part will do
