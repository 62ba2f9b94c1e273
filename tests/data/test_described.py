"""Metadata files say more of images, and hide none."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vissl_zoo.data import available_splits, open_images
from vissl_zoo.errors import UserError


@pytest.mark.parametrize("kind", ["csv", "csv;", "jsonl", "parquet"])
def test_all_images_are_there_and_those_without_a_row_are_counted(write_images, kind, caplog):
    folder = write_images({"b/0.png": 0, "b/c/1.png": 1, "d/2.png": 2})
    rows = [("0.png", "x", 7), ("c/1.png", "y", 8), ("gone.png", "y", 9)]
    columns = dict(zip(("file_name", "label", "n"), map(list, zip(*rows, strict=True)), strict=True))
    if kind == "parquet":
        pq.write_table(pa.table(columns), folder / "b" / "metadata.parquet")
    elif kind == "jsonl":
        lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
        (folder / "b" / "metadata.jsonl").write_text("\n".join(lines))
    else:
        lines = ([*columns], *rows)
        text = "\n".join((kind[3:] or ",").join(map(str, line)) for line in lines)
        (folder / "b" / "metadata.csv").write_text("\ufeff" + text, encoding="utf-8")
    table = open_images(folder)
    assert [table.name(row) for row in range(3)] == ["b/0.png", "b/c/1.png", "d/2.png"]
    assert (table.labels.tolist(), table.class_names) == ([0, 1, -1], ["x", "y"])
    assert table.column("n").tolist()[:2] == [7, 8]
    said = "metadata files say nothing of 1 of 3 images, and 1 of their 3 rows are of no image here"
    assert caplog.text.count(said) == 1
    before = table.fingerprint
    (folder / "b" / f"metadata.{kind.strip(';')}").unlink()
    assert open_images(folder).fingerprint != before


def test_one_file_at_the_root_describes_all_splits(write_images):
    said = b"file_name,label\ntest/0.png,5\ntrain/0.png,3\n"
    folder = write_images({"train/0.png": 0, "test/0.png": 1, "metadata.csv": said})
    assert [open_images(folder, split=s).labels.tolist() for s in available_splits(folder)] == [[3], [5]]


@pytest.mark.parametrize(
    "content, message",
    [(b"photographer\nme\n", "no column file_name"), (b'file_name\n\xff,"\n', "cannot be read")],
)
def test_a_file_that_says_nothing_of_images_is_left_out(write_images, content, message, caplog):
    table = open_images(write_images({"a/0.png": 0, "b/1.png": 1, "metadata.csv": content}))
    assert table.labels.tolist() == [0, 1]  # of the class folders
    assert "metadata.csv: left out, since it" in caplog.text
    assert message in caplog.text


def test_files_that_disagree_are_one_line(write_images):
    a, b = b"file_name,label\n0.png,1\n", b"file_name,label\n1.png,x\n"
    folder = write_images({"a/0.png": 0, "b/1.png": 1, "a/metadata.csv": a, "b/metadata.csv": b})
    with pytest.raises(UserError, match="its metadata files do not go together"):
        open_images(folder)
