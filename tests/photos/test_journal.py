"""Unfinished work on disk: whole parts, of one model, and nobody else's files."""

import numpy as np
import pytest

from vissl_zoo.errors import UserError
from vissl_zoo.photos.journal import Journal, Row


def rows(count: int, embed: bool) -> list[Row]:
    rng = np.random.default_rng(0)
    return [
        Row(
            f"é{i}\n.jpg",
            2**62 + i,
            1.5 + i,
            0.25,
            3,
            4,
            rng.normal(size=5).astype(np.float32) if embed else None,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("embed", [False, True])
def test_what_was_flushed_is_there_again(embed, tmp_path):
    output, written = tmp_path / "s.parquet", rows(7, embed)
    journal = Journal(output, {"model_hash": "a"})
    for i, row in enumerate(written):
        journal.add(row)
        if i in (2, 4):
            journal.flush()
    again = Journal(output, {"model_hash": "a"})  # the last two were never flushed
    assert not again.dropped
    found = sorted(again.read(), key=lambda row: row.kappa)
    assert [row[:6] for row in found] == [row[:6] for row in written[:5]]
    for one, other in zip(found, written, strict=False):
        np.testing.assert_array_equal(one.embedding, other.embedding)
    again.remove()
    assert not list(tmp_path.iterdir())


def test_other_settings_drop_it(tmp_path):
    journal = Journal(tmp_path / "s.csv", {"model_hash": "a"})
    journal.add(rows(1, False)[0])
    journal.flush()
    other = Journal(tmp_path / "s.csv", {"model_hash": "b"})
    assert other.dropped
    assert list(other.read()) == []


def test_a_damaged_part_is_passed_over(tmp_path):
    journal = Journal(tmp_path / "s.csv", {})
    journal.add(rows(1, True)[0])
    journal.flush()
    (journal.folder / "zzz.part").write_bytes(b"PAR1 cut")
    (journal.folder / ".x.tmp").write_bytes(b"half")
    assert len(list(Journal(tmp_path / "s.csv", {}).read())) == 1


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "s.csv.partial").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "s.csv", {})
