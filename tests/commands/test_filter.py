"""`vissl-zoo filter`: how many are kept, which, and that it promises no more than κ can."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.mark.parametrize("keep, count", [(1, 12), (0.95, 11), (0.5, 6), (0.001, 1)])
def test_the_most_certain_are_kept_in_their_order(keep, count, run_command, scored, tmp_path):
    output = tmp_path / "kept.parquet"
    outcome = run_command("filter", scored / "scores.parquet", "--keep", keep, "--output", output)
    assert outcome.code == 0, outcome.err
    assert "have an issue, see --no-issues" in outcome.out  # the photos are coarse, as a blurred one is
    table, kept = (pq.read_table(f).to_pydict() for f in (scored / "scores.parquet", output))
    assert len(kept["path"]) == count
    assert kept["row"] == sorted(kept["row"])
    dropped = [u for p, u in zip(table["path"], table["uncertainty"], strict=True) if p not in kept["path"]]
    assert not dropped or max(kept["uncertainty"]) <= min(dropped)


def test_photos_with_an_issue_are_left_out(run_command, scored, tmp_path):
    table = pq.read_table(scored / "scores.parquet").to_pandas()
    table["issue"] = ["", "dark"] * 6
    table.to_parquet(tmp_path / "s.parquet")
    outcome = run_command("filter", tmp_path / "s.parquet", "--keep", 1, "--no-issues")
    assert outcome.out.split() == table["path"][::2].tolist()
    table.assign(issue="blank").to_parquet(tmp_path / "s.parquet")
    outcome = run_command("filter", tmp_path / "s.parquet", "--no-issues")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    old = table.drop(columns=["issue", "content_hash", "brightness", "contrast", "sharpness"])
    old.to_parquet(tmp_path / "s.parquet")  # of an earlier version
    assert len(run_command("filter", tmp_path / "s.parquet", "--keep", 1).out.split()) == 12
    outcome = run_command("filter", tmp_path / "s.parquet", "--keep", 1, "--no-issues")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "were not measured" in outcome.err


def test_images_without_a_score_are_left_out(run_command, scored, tmp_path):
    table = pq.read_table(scored / "scores.parquet")
    rows = table.to_pylist()
    rows[0] |= {"kappa": None, "uncertainty": None, "error": "cut short"}
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "s.parquet")
    kept = run_command("filter", tmp_path / "s.parquet", "--keep", 1).out.splitlines()
    assert kept == [row["path"] for row in rows[1:]]


@pytest.mark.parametrize("keep", ["0", "1.5", "-1", "nan", "some"])
def test_bad_input_is_one_line(keep, run_command, scored):
    outcome = run_command("filter", scored / "scores.parquet", "--keep", keep)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "keep" in outcome.err


def test_not_scores(run_command, tmp_path):
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "x.parquet")
    assert "'kappa'" in run_command("filter", tmp_path / "x.parquet").err
