"""Unfinished work on disk: what was committed is there again, of one model only, and nobody else's file is touched."""

import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from vissl_zoo.errors import UserError
from vissl_zoo.photos.unfinished import SCHEMA, Row, Unfinished


def rows(count: int, embed: bool) -> list[Row]:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(count, 5)).astype(np.float32)
    return [
        Row(
            f"é{i}\n.jpg",
            2**62 + i,
            1.5 + i,
            0.25,
            0.5,
            0.1,
            0.2,
            0.3,
            3,
            4,
            "ab",
            embeddings[i] if embed else None,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("embed", [False, True])
def test_what_was_added_is_there_again_and_failures_are_not(embed, tmp_path):
    output, written = tmp_path / "s.parquet", rows(7, embed)
    with Unfinished(output, {"model_hash": "a"}) as work:
        work.add(written[:4])
        work.add([*written[2:5], written[5]._replace(error="cut short")])
    with Unfinished(output, {"model_hash": "a"}) as again:
        assert not again.dropped
        found = sorted(again.read(), key=lambda row: row.kappa)
    assert [row[:6] for row in found] == [row[:6] for row in written[:5]]
    for one, other in zip(found, written, strict=False):
        np.testing.assert_array_equal(one.embedding, other.embedding)
    assert [file.name for file in tmp_path.iterdir()] == ["s.parquet.partial"]


KILLED = """
import os, signal, sys
from pathlib import Path
from vissl_zoo.photos import unfinished
from vissl_zoo.photos.unfinished import Row, Unfinished
work = Unfinished(Path(sys.argv[1]), {})
for seconds in (0, 1e9):  # the first is on disk at once, the second is still to be written
    unfinished.COMMIT_SECONDS = seconds
    work.add([Row(f"{seconds}.jpg", 1, 1.0, 0.5, 0.5, 0.1, 0.2, 0.3, 3, 4, "ab", None)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_writing(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "s.csv"])
    assert done.returncode != 0
    with Unfinished(tmp_path / "s.csv", {}) as work:
        assert [row.path for row in work.read()] == ["0.jpg"]
    work.remove()
    assert not list(tmp_path.iterdir())


def test_other_settings_drop_it(tmp_path):
    with Unfinished(tmp_path / "s.csv", {"model_hash": "a"}) as work:
        work.add(rows(1, False))
    with Unfinished(tmp_path / "s.csv", {"model_hash": "b"}) as other:
        assert other.dropped
        assert list(other.read()) == []


def test_two_processes_do_not_share_it(tmp_path):
    with (
        Unfinished(tmp_path / "s.csv", {}),
        pytest.raises(UserError, match="wait for the process that writes it"),
    ):
        Unfinished(tmp_path / "s.csv", {})


def foreign(path, *statements):
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


VIEW = "CREATE VIEW scores AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c"


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: path.write_text("mine " * 1000), "not a database"),
        (lambda path: path.mkdir(), "unable to open"),
        (lambda path: foreign(path, "CREATE TABLE holidays (name)"), "was not left by"),
        (lambda path: foreign(path, SCHEMA[0], VIEW), "was not left by"),  # to read it would never end
    ],
)
def test_what_others_have_put_there_is_one_line_and_stays(make, said, tmp_path):
    partial = tmp_path / "s.csv.partial"
    make(partial)
    before = None if partial.is_dir() else partial.read_bytes()
    with pytest.raises(UserError, match=said) as raised:
        Unfinished(tmp_path / "s.csv", {})
    assert "\n" not in str(raised.value)
    assert str(partial) in str(raised.value)
    assert partial.is_dir() or partial.read_bytes() == before


def test_values_that_are_no_scores_are_one_line(tmp_path):
    for number, value in enumerate(("'surely'", "x'00ff'")):
        output = tmp_path / f"{number}.csv"
        with Unfinished(output, {}):
            pass
        column = ("kappa", "embedding")[number]
        foreign(f"{output}.partial", f"INSERT INTO scores (path, stamp, {column}) VALUES ('a', 1, {value})")
        with Unfinished(output, {}) as work, pytest.raises(UserError, match=r"\.partial"):
            list(work.read())
