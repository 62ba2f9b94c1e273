"""`vissl-zoo select`: the four orders, the files it writes and reads, and other tools' formats."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def select(run_command, scored):
    def select(*arguments):
        return run_command("select", scored / "scores.parquet", *arguments, "--embeddings", scored / "e.npy")

    return select


@pytest.mark.parametrize("order", ["certain", "uncertain", "diverse", "typical"])
def test_orders(order, select, scored, tmp_path):
    printed = select("-k", 5, "--order", order).out.splitlines()
    assert len(set(printed)) == 5
    table = pq.read_table(scored / "scores.parquet").to_pydict()
    assert set(printed) <= set(table["path"])
    if order in ("certain", "uncertain"):
        by_kappa = np.argsort(np.array(table["kappa"]) * (-1 if order == "certain" else 1), kind="stable")
        kappa = dict(zip(table["path"], table["kappa"], strict=True))
        assert [kappa[path] for path in printed] == [table["kappa"][i] for i in by_kappa[:5]]
    assert select("-k", 5, "--order", order, "--output", tmp_path / "list.txt").code == 0
    assert (tmp_path / "list.txt").read_text().splitlines() == printed
    select("-k", 5, "--order", order, "--output", tmp_path / "list.parquet")
    chosen = pq.read_table(tmp_path / "list.parquet").to_pydict()
    assert chosen["path"] == printed
    assert [table["path"][row] for row in chosen["row"]] == printed
    assert [table["percentile"][row] for row in chosen["row"]] == chosen["percentile"]


def test_spread_choices_do_not_repeat_an_image(select):
    """03.jpg and 10.jpg are one image: a good spread takes only one of them while others remain."""
    names = {Path(path).name for path in select("-k", 6, "--order", "diverse").out.splitlines()}
    assert not {"03.jpg", "10.jpg"} <= names


def test_photos_scored_on_the_way(run_command, photos, small_export, select):
    outcome = run_command("select", photos, "--model", small_export, "-k", 4, "--order", "typical")
    assert outcome.code == 0, outcome.err
    assert outcome.out == select("-k", 4, "--order", "typical").out


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_subsets_keep_their_embeddings(suffix, run_command, scored, tmp_path):
    kept, embeddings = tmp_path / f"kept{suffix}", ("--embeddings", scored / "e.npy")
    assert run_command("filter", scored / "scores.parquet", "--keep", 0.5, "--output", kept).code == 0
    outcome = run_command("select", kept, "-k", 3, "--order", "diverse", *embeddings)
    assert outcome.code == 0, outcome.err
    in_kept = run_command("filter", kept, "--keep", 1).out.splitlines()
    assert set(outcome.out.splitlines()) <= set(in_kept)
    assert len(in_kept) == 6


def test_duplicates_are_passed_over(run_command, scored, tmp_path):
    embeddings = ("--embeddings", scored / "e.npy")
    run_command(
        "dedup", scored / "scores.parquet", *embeddings, "--threshold", 1, "--output", tmp_path / "d.csv"
    )
    names = run_command("select", tmp_path / "d.csv", "-k", 11, "--order", "certain").out.splitlines()
    assert len(names) == 11
    assert len({Path(n).name for n in names} & {"03.jpg", "10.jpg"}) == 1
    outcome = run_command("select", tmp_path / "d.csv", "-k", 12, "--order", "certain")
    assert "only 11 images" in outcome.err


def test_to_another_tool(select, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = select("-k", 2, "--output", "pick.csv", "--to", "label-studio")
    assert outcome.code == 0, outcome.err
    assert len(json.loads((tmp_path / "pick.label-studio.json").read_text())) == 2
    assert select("-k", 2, "--to", "fiftyone", "--to-file", "fo.json").code == 0
    assert len(json.loads((tmp_path / "fo.json").read_text())["samples"]) == 2


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["{scores}", "-k", "0"], "-k"),
        (["{scores}", "-k", "13", "--order", "certain"], "only 12"),
        (["{scores}", "--order", "typical"], "--embeddings"),
        (["{scores}", "--embeddings", "no.npy"], "no.npy"),
        (["{scores}", "--embeddings", "{wrong}"], "3 rows"),
        (["{scores}", "--embeddings", "{scores}"], "cannot be read"),
        (["{wrong}"], "cannot be read"),
        (["{photos}"], "--model"),
        (["{scores}", "--order", "best"], "best"),
        (["{scores}", "--order", "certain", "--output", "{scores}"], "written over"),
        (["{scores}", "--seed", "4294967296"], "--seed"),
    ],
)
def test_bad_input_is_one_line(arguments, named, run_command, scored, photos, tmp_path):
    np.save(tmp_path / "wrong.npy", np.zeros((3, 4), dtype=np.float32))
    words = {"scores": scored / "scores.parquet", "wrong": tmp_path / "wrong.npy", "photos": photos}
    outcome = run_command("select", *[a.format(**words) for a in arguments])
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert named in outcome.err
