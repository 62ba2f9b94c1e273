"""Tables of scores: written, read back, and refused in one line."""

import csv

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from vissl_zoo.errors import UserError
from vissl_zoo.photos.score_table import (
    COLUMNS,
    certain_first,
    percentile,
    read_embeddings,
    read_scores,
    subset,
    write_scores,
)

PATHS = ["a.jpg", "=1+1.jpg", "+a", "-a", "@a", "\ta", "\ra", "'a", 'q".jpg', "line\nbreak.jpg", "é,;日.png"]


@pytest.fixture
def scores() -> pd.DataFrame:
    n = len(PATHS)
    kappa = np.linspace(1, 2, n, dtype=np.float32)
    kappa[3] = np.nan
    errors = [None] * n
    errors[3] = "=cut short"
    uncertainty = pd.Series(1 / (1 + kappa))
    size = pd.array([None, *range(1, n)], dtype="Int64")
    quality = [np.linspace(0, 1, n, dtype=np.float32)] * 3
    said = (["dark, blurred"] * n, ["ab12"] * n)
    values = (
        PATHS,
        kappa,
        uncertainty,
        percentile(uncertainty),
        size,
        size,
        *quality,
        *said,
        errors,
        "m",
        "h",
    )
    table = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
    table.attrs = {"folder": "/photos", "images": n}
    return table


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_round_trip(suffix, scores, tmp_path):
    file = tmp_path / f"s{suffix}"
    write_scores(file, scores)
    read = read_scores(str(file))
    known = {"error": "none"}  # whether a missing text is None or NaN is pandas' affair
    pd.testing.assert_frame_equal(read.fillna(known), scores.fillna(known), check_dtype=False)
    assert read.dtypes["kappa"] == np.float32
    assert read.attrs["folder"] == ("/photos" if suffix == ".parquet" else ".")
    places = np.array([7, 1, 3])
    write_scores(file, subset(read.assign(kept=True, note="mine"), places))
    again = read_scores(str(file))
    assert again["row"].tolist() == [7, 1, 3]
    assert again["note"].tolist() == ["mine"] * 3  # a column of the user's own
    assert "kept" not in again
    np.testing.assert_array_equal(again["percentile"], scores["percentile"][places])
    assert certain_first(again).tolist() == [0, 1]
    assert list(tmp_path.iterdir()) == [file]


def test_no_cell_of_a_csv_is_a_formula(scores, tmp_path):
    write_scores(tmp_path / "s.csv", scores)
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert "nan" not in " ".join(cells).lower()


def test_percentile_is_a_rank_with_shared_places():
    ranks = percentile(pd.Series([0.3, 0.1, 0.1, np.nan, *[0.5] * 7]))
    expected = [100 * 2 / 9, 100 * 0.5 / 9, 100 * 0.5 / 9, np.nan, *[100 * 6 / 9] * 7]
    np.testing.assert_allclose(ranks, expected)
    assert percentile(pd.Series([0.3, np.nan]))[0] == 0


def test_a_list_of_names_with_a_line_break(scores, tmp_path):
    with pytest.raises(UserError, match="line break"):
        write_scores(tmp_path / "s.txt", scores)
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
        ("a.csv", b"path,kappa,uncertainty\na,b,c\n", "cannot be read: .*'b'|\"b\""),
        ("a.csv", b"path,kappa,uncertainty\na\n", "cannot be read"),
        ("a.jsonl", b"{", "cannot be read"),
        ("a.jsonl", b"[1]\n", "no column 'path'"),
        ("a.jsonl", b'{"path": null, "kappa": 1, "uncertainty": 0}\n', "path of row 0"),
        (
            "a.jsonl",
            b'{"path": "a", "kappa": 1, "uncertainty": 0, "row": 9999999999999999999999}\n',
            "cannot be read",
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
    assert scores["path"].tolist() == ["a.jpg", "b.jpg"]
    assert certain_first(scores).tolist() == [0]
    assert scores["percentile"].isna().tolist() == [False, True]
    assert set(COLUMNS) <= set(scores)


@pytest.mark.parametrize("false", ["FALSE", "False", "false", "0", "0.0"])
@pytest.mark.parametrize(
    "encoding, mark", [("utf-8", ";"), ("utf-8-sig", ";"), ("utf-16", "\t"), ("utf-8", ",")]
)
def test_a_table_that_pandas_or_a_spreadsheet_wrote(encoding, mark, false, tmp_path):
    half = "0.5" if mark == "," else "0,5"
    lines = (
        ["", "path", "kappa", "uncertainty", "width", "kept"],
        ["0", "a é.jpg", "1.0", half, "640.0", "TRUE"],
    )
    lines = *lines, ["1", "b.jpg", "2", half, "", false]
    (tmp_path / "s.csv").write_text("\r\n".join(map(mark.join, lines)), encoding=encoding, newline="")
    scores = read_scores(str(tmp_path / "s.csv"))
    assert scores["path"].tolist() == ["a é.jpg", "b.jpg"]
    assert scores["uncertainty"].tolist() == [0.5, 0.5]
    assert (scores["width"][0], scores["width"].isna().tolist()) == (640, [False, True])
    assert scores["kept"].tolist() == [True, False]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_that_went_through_pandas(suffix, scores, tmp_path):
    file = tmp_path / f"s{suffix}"
    if suffix == ".csv":  # pandas itself writes a lone "\r" without quotes
        scores = scores[scores["path"] != "\ra"]
    kept = [i % 2 == 0 for i in range(len(scores))]
    write_scores(file, scores.assign(kept=kept))
    if suffix == ".parquet":
        pd.read_parquet(file).to_parquet(file)
    elif suffix == ".csv":
        pd.read_csv(file).to_csv(file)
    else:
        pd.read_json(file, lines=True, convert_dates=False).to_json(file, orient="records", lines=True)
    again = read_scores(str(file))
    assert again["path"].tolist() == scores["path"].tolist()
    assert again["kept"].tolist() == kept
    assert again["width"].fillna(-1).tolist() == scores["width"].fillna(-1).tolist()


@pytest.mark.parametrize("memory", [b"[1]", b'{"folder": 3}'])
def test_what_a_parquet_file_of_others_remembers(memory, scores, tmp_path):
    write_scores(tmp_path / "s.parquet", scores)
    table = pq.read_table(tmp_path / "s.parquet").replace_schema_metadata({b"vissl_zoo": memory})
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(UserError, match="remembers"):
        read_scores(str(tmp_path / "s.parquet"))
