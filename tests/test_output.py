"""Files written whole, and numbers as text."""

import os

import pytest

from vissl_zoo.errors import UserError, first_line
from vissl_zoo.output import output_file, short_number, write_text, write_whole


def test_a_file_is_replaced_in_one_step(tmp_path):
    file = tmp_path / "table.csv"
    write_text(file, "κ\r\n")
    assert file.read_bytes() == "κ\r\n".encode()

    def fail(path):
        assert path.suffix == ".csv"
        path.write_text("half")
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        write_whole(file, fail)
    assert [f.name for f in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_bytes() == "κ\r\n".encode()


def test_what_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/a.txt cannot be written: No such file"):
        write_text(tmp_path / "nowhere" / "a.txt", "")


@pytest.mark.parametrize(
    "value, text",
    [(None, "undefined"), (12345.6, "12346"), (-2000.4, "-2000"), (0.78649, "0.7865"), (0.0, "0")],
)
def test_numbers_are_short(value, text):
    assert short_number(value) == text


def test_the_first_line_that_says_something():
    assert first_line(RuntimeError("\n  a\nb")) == "a"
    assert first_line(KeyError()) == "KeyError"


def test_outputs_are_checked_before_the_work(tmp_path):
    assert output_file(None, "--output", (".csv",)) is None
    assert output_file(str(tmp_path / "A.CSV"), "--output", (".csv",)) == tmp_path / "A.CSV"
    (tmp_path / "d.csv").mkdir()
    for name, message in [("a.txt", "must end"), ("d.csv", "a folder"), ("no/a.csv", "no folder")]:
        with pytest.raises(UserError, match=message):
            output_file(str(tmp_path / name), "--output", (".csv",))


def test_what_is_read_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    os.symlink("a.csv", tmp_path / "link.csv")
    for name in ("a.csv", "./a.csv", str(tmp_path / "link.csv")):
        with pytest.raises(UserError, match="written over"):
            output_file(name, "--output", (".csv",), [None, "a.csv"])
    assert output_file("b.csv", "--output", (".csv",), ["a.csv"])


def test_names_of_other_locales_are_written_as_utf_8(tmp_path):
    write_text(
        tmp_path / "x", os.fsdecode("é".encode()) + "é".encode().decode("ascii", "surrogateescape") + "\udcff"
    )
    assert (tmp_path / "x").read_bytes().decode() == "éé\\xff"
