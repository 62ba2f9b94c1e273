"""What a user gets wrong, or finds broken, is one line that names it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vissl_zoo.data import BadImage, available_splits, open_images
from vissl_zoo.errors import UserError


def one_line(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_path(tmp_path):
    message = one_line(open_images, str(tmp_path / "missing"))
    assert (
        message == f"{tmp_path}/missing: neither a file nor a folder here, nor a Hub data set id (org/name)"
    )


def test_unknown_hub_id_offline():
    message = one_line(open_images, "nobody/nothing")
    assert message.startswith(
        "nobody/nothing: neither a file nor a folder here, nor a Hub data set that could be loaded "
        "(offline: HF_HUB_OFFLINE is set): "
    )
    assert one_line(available_splits, "nobody/nothing") == message


def test_unknown_split(write_images):
    folder = write_images({"train/1.png": 1, "test/2.png": 2})
    assert one_line(open_images, folder, split="extra") == f'{folder}: no split "extra"; it has train, test'


def test_unknown_columns(tmp_path, picture, write_parquet):
    path = write_parquet(tmp_path / "x.parquet", [picture(0)], [0])
    assert one_line(open_images, path, image_column="i").startswith(
        f'{path}: no image column "i"; the columns'
    )
    assert one_line(open_images, path, label_column="l").startswith(
        f'{path}: no label column "l"; the columns'
    )


def test_empty_and_corrupt_parquet(tmp_path, picture, write_parquet):
    empty = write_parquet(tmp_path / "empty.parquet", [], [])
    assert one_line(open_images, empty) == f'{empty}: the split "train" is empty'
    corrupt = write_parquet(tmp_path / "d" / "train.parquet", [picture(0)], [0])
    corrupt.write_bytes(corrupt.read_bytes()[:-20])
    message = one_line(open_images, corrupt.parent)
    assert message.startswith(f"{corrupt}: not a readable parquet file (")


def test_parquet_damaged_inside(tmp_path, picture, write_parquet):
    path = write_parquet(tmp_path / "x.parquet", [picture(n) for n in range(50)], [0] * 50)
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)  # the first data page; the footer is whole
    path.write_bytes(content)
    assert one_line(open_images, path).startswith(f"{path}: cannot be read as a parquet data set (")


def test_parquet_files_that_disagree(tmp_path, picture, write_parquet):
    write_parquet(tmp_path / "a.parquet", [picture(0)], [0])
    pq.write_table(pa.table({"other": [picture(0)]}), tmp_path / "b.parquet")
    assert one_line(open_images, tmp_path).startswith(f"{tmp_path}: cannot be read as a parquet data set (")


def test_a_corrupt_image_costs_its_row_only(write_images, picture):
    table = open_images(write_images({"a.png": 1, "b.png": b"rubbish", "c.png": picture(3)[:60]}))
    assert table.read(0).size == (8, 6)
    for row, name in ((1, "b.png"), (2, "c.png")):
        with pytest.raises(BadImage) as caught:
            table.read(row)
        assert (caught.value.row, caught.value.name) == (row, name)
        assert str(caught.value).startswith(f"{name}: ")
    with pytest.raises(BadImage, match=r"b\.png: not an image that Pillow can read"):
        table.size(1)


def test_a_row_without_image(tmp_path, picture):
    pq.write_table(pa.table({"image": [picture(0), None]}), tmp_path / "x.parquet")
    with pytest.raises(BadImage, match="row 1: the row holds no image"):
        open_images(tmp_path / "x.parquet").read(1)
