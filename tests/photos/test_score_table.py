"""Tables of scores: written, read back, and refused in one line."""

import csv
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from vissl_zoo.errors import UserError
from vissl_zoo.photos.score_table import Scores, check_output, read_embeddings, read_scores, write_columns

PATHS = ["a.jpg", "=1+1.jpg", "+a", "-a", "@a", "\ta", "\ra", "'a", 'q".jpg', "line\nbreak.jpg", "é,;日.png"]


@pytest.fixture
def scores() -> Scores:
    n = len(PATHS)
    kappa = np.linspace(1, 2, n, dtype=np.float32)
    uncertainty = (1 / (1 + kappa)).astype(np.float32)
    kappa[3] = uncertainty[3] = np.nan
    errors = [None] * n
    errors[3] = "=cut short"
    size = np.arange(n)
    return Scores(
        PATHS, kappa, uncertainty, size, size, errors, np.arange(n), np.ones(n, bool), "m", "h", "/photos"
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_round_trip(suffix, scores, tmp_path):
    file = tmp_path / f"s{suffix}"
    write_columns(file, scores.columns(), {"folder": scores.folder})
    read = read_scores(str(file))
    assert read.paths == PATHS
    assert read.errors == scores.errors
    np.testing.assert_array_equal(read.kappa, scores.kappa)
    np.testing.assert_array_equal(read.uncertainty, scores.uncertainty)
    np.testing.assert_array_equal(read.percentile, scores.percentile)
    np.testing.assert_array_equal(read.width, scores.width)
    assert (read.model, read.model_hash) == ("m", "h")
    subset = np.array([7, 1, 3])
    read.write(file, subset)
    again = read_scores(str(file))
    assert again.rows.tolist() == [7, 1, 3]
    np.testing.assert_array_equal(again.percentile, scores.percentile[subset])
    assert again.order.tolist() == [0, 1]
    assert list(tmp_path.iterdir()) == [file]


def test_no_cell_of_a_csv_is_a_formula(scores, tmp_path):
    write_columns(tmp_path / "s.csv", scores.columns())
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_percentile_is_a_rank_with_shared_places(scores):
    scores.uncertainty = np.array([0.3, 0.1, 0.1, np.nan, *[0.5] * 7], dtype=np.float32)
    expected = [100 * 2 / 9, 100 * 0.5 / 9, 100 * 0.5 / 9, np.nan, *[100 * 6 / 9] * 7]
    np.testing.assert_allclose(scores.percentile, expected)
    scores.uncertainty[1:] = np.nan
    assert scores.percentile[0] == 0


def test_a_list_of_names_with_a_line_break(scores, tmp_path):
    with pytest.raises(UserError, match="line break"):
        write_columns(tmp_path / "s.txt", scores.columns())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.parquet", b"", "cannot be read"),
        ("a.parquet", b"PAR1 and then nothing", "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.csv", b"path,kappa,uncertainty\n", "no image"),
        ("a.csv", b"path,kappa\na,1\n", "'uncertainty'"),
        ("a.csv", b"path,kappa,uncertainty\na,b,c\n", "could not convert"),
        ("a.csv", b"path,kappa,uncertainty\na\n", "cannot be read"),
        ("a.jsonl", b"{", "cannot be read"),
        ("a.jsonl", b"[1]\n", "cannot be read"),
        ("a.jsonl", b'{"path": null, "kappa": 1, "uncertainty": 0}\n', "path of row 0"),
        (
            "a.jsonl",
            b'{"path": "a", "kappa": 1, "uncertainty": 0, "row": 9999999999999999999999}\n',
            "too large",
        ),
        ("a.txt", b"a\n", "parquet"),
    ],
)
def test_what_is_no_table_of_scores(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_scores(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_embeddings_of_other_images(scores, tmp_path):
    scores.extra = {"images": len(scores)}
    good = np.ones((len(scores), 4), dtype=np.float32)
    good[3] = np.nan  # where the image failed
    for name, values, message in [
        ("good", good, None),
        ("short", good[1:], "10 rows"),
        ("bad", np.where(np.arange(44).reshape(11, 4) == 20, np.nan, good), "row 5"),
        ("flat", good[:, 0], "not a table"),
        ("narrow", good[:, :0], "not a table"),
        ("text", np.full((11, 4), "a"), "not a table"),
        ("objects", np.array([{}]), "cannot be read"),
    ]:
        np.save(tmp_path / f"{name}.npy", values, allow_pickle=name == "objects")
        if message is None:
            np.testing.assert_array_equal(read_embeddings(str(tmp_path / "good.npy"), scores, "x"), good)
            continue
        with pytest.raises(UserError, match=message):
            read_embeddings(str(tmp_path / f"{name}.npy"), scores, "x")


def test_outputs_are_checked_before_the_work(tmp_path):
    assert check_output(None, "--output", (".csv",)) is None
    assert check_output(str(tmp_path / "A.CSV"), "--output", (".csv",)) == tmp_path / "A.CSV"
    (tmp_path / "d.csv").mkdir()
    for name, message in [("a.txt", "must end"), ("d.csv", "a folder"), ("no/a.csv", "no folder")]:
        with pytest.raises(UserError, match=message):
            check_output(str(tmp_path / name), "--output", (".csv",))


def test_embeddings_in_an_archive(scores, tmp_path):
    np.savez(tmp_path / "e.npz", e=np.ones((11, 4), dtype=np.float32))
    (tmp_path / "broken.npy").write_bytes(b"PK\x03\x04 and no more")
    for name, message in [("e.npz", "an .npz"), ("broken.npy", "cannot be read")]:
        with pytest.raises(UserError, match=message):
            read_embeddings(str(tmp_path / name), scores, "x")


def test_a_table_that_a_spreadsheet_saved(tmp_path):
    """With a byte order mark, an empty line, and half a score, which is none."""
    file = tmp_path / "s.csv"
    file.write_text("\ufeffpath,kappa,uncertainty\na.jpg,1,0.5\n\nb.jpg,,0.2\n", encoding="utf-8")
    scores = read_scores(str(file))
    assert scores.paths == ["a.jpg", "b.jpg"]
    assert scores.good.tolist() == [0]


@pytest.mark.parametrize("memory", [b"[1]", b'{"folder": 3}'])
def test_what_a_parquet_file_of_others_remembers(memory, scores, tmp_path):
    write_columns(tmp_path / "s.parquet", scores.columns())
    table = pq.read_table(tmp_path / "s.parquet").replace_schema_metadata({b"vissl_zoo": memory})
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(UserError, match="remembers"):
        read_scores(str(tmp_path / "s.parquet"))


def test_what_is_read_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    os.symlink("a.csv", tmp_path / "link.csv")
    for name in ("a.csv", "./a.csv", str(tmp_path / "link.csv")):
        with pytest.raises(UserError, match="written over"):
            check_output(name, "--output", (".csv",), [None, "a.csv"])
    assert check_output("b.csv", "--output", (".csv",), ["a.csv"])
