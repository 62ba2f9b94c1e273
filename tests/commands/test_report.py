"""`vissl-zoo report`: one page, with everything in it."""

import re

import pytest

from vissl_zoo.photos.score_table import read_scores, write_scores


def test_page(run_command, scored, tmp_path):
    pages = []
    for name in ("a.html", "b.html"):
        flags = ("--embeddings", scored / "e.npy", "--output", tmp_path / name, "--threshold", 1)
        outcome = run_command("report", scored / "scores.parquet", *flags, "--count", 3)
        assert outcome.code == 0, outcome.err
        pages.append((tmp_path / name).read_text())
    page = pages[0]
    assert page.count("<circle") == 12
    assert page.count("data-source=") == 12
    assert page.count("<figure") == 3 + 3 + 3 + 2  # both ends, marked ones, the pair that is one image
    assert "1 groups at a cosine of 1 or more" in page
    assert "http" not in page
    # The same input gives the same page.
    assert page.replace("a.html", "b.html") == pages[1]
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', page)
    assert all(0 <= float(x) <= 1000 and 0 <= float(y) <= 640 for x, y in places)
    assert len(set(places)) >= 11


@pytest.mark.parametrize("how", ["pca", "tsne"])
def test_maps(how, run_command, scored, tmp_path):
    flags = ("--embeddings", scored / "e.npy", "--output", tmp_path / "r.html", "--map", how)
    assert run_command("report", scored / "scores.parquet", *flags).code == 0
    named = {"pca": "principal components", "tsne": "t-SNE"}[how]
    assert f"laid out by {named}" in (tmp_path / "r.html").read_text()


def test_without_embeddings_and_without_the_photos(run_command, scored, tmp_path):
    scores = read_scores(str(scored / "scores.parquet"))
    scores["path"] = [f"/gone/<b>{i}.jpg" for i in range(12)]
    write_scores(tmp_path / "s.parquet", scores)
    assert run_command("report", tmp_path / "s.parquet", "--output", tmp_path / "r.html").code == 0
    page = (tmp_path / "r.html").read_text()
    assert page.count("cannot be read") == 12 + 12  # by certainty, and those marked by their pixels
    assert "<b>" not in page
    assert "Map of the embedding" not in page


def test_bad_input_is_one_line(run_command, scored):
    for arguments in (
        [scored / "scores.parquet", "--count", 0],
        [scored / "e.npy"],
        ["s.parquet", "--seed", 2**32],
    ):
        outcome = run_command("report", *arguments)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
