"""Images, parquet files and tars under a URL, and tars beside us: `memory://` and `file://` stand for object stores."""

import io
import pickle
import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image

from vissl_zoo.data import open_images
from vissl_zoo.data.object_store import find_stored_files
from vissl_zoo.errors import UserError


def png(grey: int) -> bytes:
    Image.new("RGB", (4, 3), (grey,) * 3).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def greys(table) -> list[int]:
    return [table.read(row).getpixel((0, 0))[0] for row in range(len(table))]


@pytest.fixture
def store():
    """An empty store in memory."""
    system = fsspec.filesystem("memory")
    system.rm("/", recursive=True) if system.ls("/") else None
    yield system
    system.rm("/", recursive=True) if system.ls("/") else None


@pytest.fixture
def tar(tmp_path):
    """A tar as webdataset writes it."""
    file = tmp_path / "tars" / "shard-0.tar"
    file.parent.mkdir()
    with tarfile.open(file, "w") as archive:
        for number in range(3):
            for suffix, content in (("png", png(10 * number)), ("cls", str(number).encode())):
                entry = tarfile.TarInfo(f"{number:05}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file


def test_images_of_a_folder_a_glob_and_alone(store):
    for name, grey in {"a/0.png": 1, "a/b/1.png": 2, ".hidden/2.png": 3, "a/notes.txt": 0}.items():
        store.pipe(f"/photos/{name}", png(grey))
    assert greys(open_images("memory://photos")) == [1, 2]
    assert greys(open_images("memory://photos/a/*.png")) == [1]
    assert greys(pickle.loads(pickle.dumps(open_images("memory://photos/a/b/1.png")))) == [2]


def test_a_fingerprint_changes_with_the_store(store):
    store.pipe("/photos/0.png", png(1))
    before = open_images("memory://photos").fingerprint
    assert open_images("memory://photos").fingerprint == before
    store.pipe("/photos/0.png", png(200))
    assert open_images("memory://photos").fingerprint != before


def test_parquet_files_win_over_images(tmp_path, write_split):
    images = [np.full((4, 4, 3), grey, np.uint8) for grey in (5, 6)]
    write_split(tmp_path / "0.parquet", images)
    write_split(tmp_path / "1.parquet", images[::-1])
    (tmp_path / "x.png").write_bytes(png(1))
    assert greys(open_images(f"file://{tmp_path}")) == [5, 6, 6, 5]


def test_tars_here_and_under_a_url(tar):
    for path in (str(tar), str(tar.parent), f"file://{tar}"):
        assert greys(open_images(path)) == [0, 10, 20]


@pytest.mark.parametrize(
    "url, said",
    [
        ("memory://absent", "no image, parquet file or tar is found there"),
        ("nosuch://x/y.png", "Protocol not known: nosuch"),
        ("http://127.0.0.1:9/x.png", "no image, parquet file or tar is found there"),
    ],
)
def test_what_cannot_be_found_is_one_line(store, url, said):
    with pytest.raises(UserError, match=said) as caught:
        find_stored_files(url)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)


def test_a_store_whose_package_is_absent_names_it(monkeypatch):
    def absent(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", absent)
    with pytest.raises(UserError, match=r"s3://bucket/x: .*Install s3fs to access S3"):
        find_stored_files("s3://bucket/x")
