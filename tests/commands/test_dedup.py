"""`vissl-zoo dedup`: groups, which of them is kept, and the report."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image


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
        ranks = [
            (-int(rows[i]["width"]) * int(rows[i]["height"]), float(rows[i]["uncertainty"])) for i in members
        ]
        assert ranks[members.index(kept)] == min(ranks)  # the largest, then the most certain
        for i in members:
            assert float(rows[i]["cosine"]) == pytest.approx(min(1, cosines[i, kept]), abs=1e-5)
            assert float(rows[i]["cosine"]) >= threshold - 1e-5


def test_exact_copies_are_told_first(dedup, photos):
    first, named, then = dedup().out.splitlines()[:3]
    assert first == "1 files are exact copies of another, byte by byte"
    assert set(named.split("  ")) == {"", str(photos / "03.jpg"), "is", str(photos / "10.jpg")}
    assert then.startswith("12 images: ")


def test_a_table_without_hashes_has_no_exact_copies(scored, run_command, tmp_path):
    table = pd.read_parquet(scored / "scores.parquet")
    for number, old in enumerate((table.drop(columns="content_hash"), table.assign(content_hash=""))):
        old.to_parquet(tmp_path / f"{number}.parquet")
        own = (tmp_path / f"{number}.parquet", "--embeddings", scored / "e.npy")
        outcome = run_command("dedup", *own, "--reference", own[0], "--reference-embeddings", own[2])
        assert outcome.code == 0, outcome.err
        assert outcome.out.startswith("12 images: ")
        assert "12 images repeat one of" in outcome.out
        assert "0 of them byte by byte" in outcome.out


def test_what_leaked_from_another_set_is_found_and_not_kept(
    dedup, run_command, small_export, photos, tmp_path
):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "other name.jpg").write_bytes((photos / "05.jpg").read_bytes())
    # The very pixels in another file, which comes first: what is named is the file that is equal byte by byte.
    Image.open(photos / "05.jpg").save(tmp_path / "test" / "a.png")
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "test" / "new.jpg")
    flags = ("--output", tmp_path / "o.parquet", "--embeddings", tmp_path / "o.npy")
    assert run_command("score", tmp_path / "test", "--model", small_export, *flags).code == 0
    reference = ("--reference", tmp_path / "o.parquet", "--reference-embeddings", tmp_path / "o.npy")
    outcome = dedup("--threshold", 1, *reference, "--output", tmp_path / "d.parquet")
    assert "1 images repeat one of" in outcome.out
    assert "1 of them byte by byte" in outcome.out
    table = pd.read_parquet(tmp_path / "d.parquet").set_index("path")
    leaked = table[table["reference"].notna()]
    assert leaked.index.tolist() == [str(photos / "05.jpg")]
    assert leaked["reference"].tolist() == [str(tmp_path / "test" / "other name.jpg")]
    assert leaked["reference_cosine"].tolist() == pytest.approx([1], abs=1e-4)
    assert not leaked["kept"].any()
    kept = run_command("filter", tmp_path / "d.parquet", "--keep", 1).out.split("\n")
    assert str(photos / "05.jpg") not in kept


def test_a_reference_of_another_model_is_one_line(scored, run_command, tmp_path):
    table = pd.read_parquet(scored / "scores.parquet").assign(model_hash="0123456789abcdef")
    table.to_parquet(tmp_path / "o.parquet")
    own = (scored / "scores.parquet", "--embeddings", scored / "e.npy", "--reference", tmp_path / "o.parquet")
    outcome = run_command("dedup", *own, "--reference-embeddings", scored / "e.npy")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "another model" in outcome.err
    outcome = run_command("dedup", *own)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--reference-embeddings" in outcome.err


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
