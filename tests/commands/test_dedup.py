"""`vissl-zoo dedup`: groups, which of them is kept, and the report."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def dedup(run_command, scored):
    def dedup(*arguments):
        return run_command("dedup", scored / "scores.parquet", "--embeddings", scored / "e.npy", *arguments)

    return dedup


def test_the_same_image_twice(dedup, tmp_path):
    outcome = dedup("--threshold", 1, "--output", tmp_path / "d.parquet")
    assert outcome.code == 0, outcome.err
    assert "1 groups of near-duplicates, 1 images repeat another, 11 are left" in outcome.out
    table = pq.read_table(tmp_path / "d.parquet").to_pydict()
    in_group = [Path(p).name for p, g in zip(table["path"], table["group"], strict=True) if g == 0]
    assert in_group == ["03.jpg", "10.jpg"]
    assert sum(table["kept"]) == 11
    assert [c for c in table["cosine"] if c is not None] == pytest.approx([1, 1])
    assert dedup("--threshold", 1, "--output", tmp_path / "d.txt").code == 0
    kept = [p for p, k in zip(table["path"], table["kept"], strict=True) if k]
    assert (tmp_path / "d.txt").read_text().splitlines() == kept


@pytest.mark.parametrize("centre", [False, True])
def test_groups_are_what_they_say(centre, dedup, scored, tmp_path):
    embeddings = np.load(scored / "e.npy").astype(np.float64)
    if centre:
        embeddings -= embeddings.mean(axis=0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = embeddings @ embeddings.T
    threshold = np.quantile(cosines, 0.8)
    flags = ["--centre"] if centre else []
    dedup("--threshold", threshold, "--output", tmp_path / "d.csv", *flags)
    with open(tmp_path / "d.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    groups = {}
    for i, row in enumerate(rows):
        if row["group"]:
            groups.setdefault(int(row["group"]), []).append(i)
    assert groups
    sizes = [len(groups[g]) for g in sorted(groups)]
    assert sizes == sorted(sizes, reverse=True)
    for members in groups.values():
        (kept,) = [i for i in members if rows[i]["kept"] == "True"]
        assert float(rows[kept]["uncertainty"]) == min(float(rows[i]["uncertainty"]) for i in members)
        for i in members:
            assert float(rows[i]["cosine"]) == pytest.approx(min(1, cosines[i, kept]), abs=1e-5)
            assert float(rows[i]["cosine"]) >= threshold - 1e-5


def test_a_low_threshold_is_told(dedup):
    assert "try --threshold above" in dedup("--threshold", 0.01).out
    printed = dedup("--threshold", 1).out
    assert "group 0: 2 images" in printed
    assert "cosine of two random images" in printed


@pytest.mark.parametrize("threshold", ["0", "1.1", "nan"])
def test_bad_threshold(threshold, dedup):
    outcome = dedup("--threshold", threshold)
    assert outcome.code == 2
    assert "--threshold" in outcome.err


def test_without_embeddings(run_command, scored):
    outcome = run_command("dedup", scored / "scores.parquet")
    assert outcome.code == 2
    assert "--embeddings" in outcome.err
