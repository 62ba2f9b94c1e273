"""`vissl-zoo score --to`: what other tools import."""

import pytest


def test_rows_for_a_tool_that_reads_files_are_refused_before_anything_is_scored(
    run_command, small_export, shapes_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("vissl_zoo.photos.scoring.score_inputs", lambda *_, **__: pytest.fail("scored"))
    rows, output = shapes_folder / "test.parquet", tmp_path / "s.parquet"
    outcome = run_command("score", rows, "--model", small_export, "--to", "fiftyone", "--output", output)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "test.parquet#0 is no file here, and fiftyone reads files alone" in outcome.err
