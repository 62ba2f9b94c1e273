"""`vissl-zoo compare`: SciPy's correlations, whatever the order of the rows, and bad input in one line."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.stats import linregress, pearsonr, spearmanr

from vissl_zoo.commands import main


def values(count=40):
    """κ with ties (count,) and an entropy (count,) that falls with it."""
    rng = np.random.default_rng(0)
    kappa = rng.integers(800, 830, count).astype(np.float32)
    return kappa, (1 - kappa / 1000 + 0.01 * rng.standard_normal(count)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    """write(name, kappa, uncertainty, order=None, **columns) -> an evaluation folder, its rows in that order."""

    def write(name, kappa, uncertainty, order=None, **columns):
        count = len(kappa)
        order = np.arange(count) if order is None else order
        columns = {"row": np.arange(count), "path": np.array([f"{i}.png" for i in range(count)])} | columns
        columns |= {"kappa": kappa, "uncertainty": uncertainty}
        (tmp_path / name).mkdir()
        rows = {k: np.array(c)[order].tolist() for k, c in columns.items()}
        pq.write_table(pa.table(rows), tmp_path / name / "predictions.parquet")
        return str(tmp_path / name)

    return write


@pytest.fixture
def compare(tmp_path, capsys):
    """compare(*arguments) -> exit code, compare.json or None, stderr."""

    def compare(*arguments):
        code = main(["compare", *arguments, "--output-dir", str(tmp_path / "out")])
        file = tmp_path / "out" / "compare.json"
        return code, json.loads(file.read_text()) if file.exists() else None, capsys.readouterr().err

    return compare


def test_correlations_are_those_of_scipy(write, compare, tmp_path):
    kappa, entropy = values()
    shuffled = np.random.default_rng(1).permutation(40)
    a, b = write("vi", kappa, 1 / kappa), write("dino", kappa * 0 + 5, entropy, order=shuffled)
    code, found, _ = compare(a, b, "--column-a", "kappa")
    assert code == 0
    x, y = kappa.astype(float), entropy.astype(float)
    assert found["pearson"]["value"] == pytest.approx(pearsonr(x, y).statistic, abs=1e-6)
    assert found["spearman"]["value"] == pytest.approx(spearmanr(x, y).statistic, abs=1e-6)
    assert found["pearson"]["value"] < -0.3  # signed
    assert found["pearson"]["p_value"] < 0.01
    line = linregress(x, y)
    assert found["regression"] == pytest.approx({"slope": line.slope, "intercept": line.intercept})
    assert found["images"] == 40
    assert Image.open(tmp_path / "out" / "compare.png").size[0] > 300


def test_the_uncertainty_is_compared_by_default_and_a_file_will_do(write, compare):
    kappa, entropy = values()
    a, b = write("a", kappa, entropy), write("b", kappa, 2 * entropy)
    code, found, _ = compare(f"{a}/predictions.parquet", b)
    assert code == 0
    assert found["spearman"]["value"] == pytest.approx(1)
    assert found["a"]["column"] == "uncertainty"


@pytest.mark.parametrize("count, said", [(40, "constant in"), (1, "fewer than two")])
def test_a_constant_is_undefined_and_says_why(write, compare, count, said):
    kappa, entropy = values(count)
    a, b = write("a", kappa, entropy * 0), write("b", kappa, entropy)
    code, found, _ = compare(a, b)
    assert code == 0
    assert found["pearson"] is found["spearman"] is found["regression"] is None
    assert said in found["reasons"]["pearson"]


def one_line(err, said):
    return err.startswith("vissl-zoo: ") and err.count("\n") == 1 and said in err


@pytest.mark.parametrize(
    "change, said",
    [
        ({"row": np.arange(40) + 1}, "row 0 is in one of them alone"),
        ({"row": np.repeat(np.arange(20), 2)}, "not of the same images"),
        ({"path": np.array([f"{i}.jpg" for i in range(40)])}, "row 0 is 0.png and 0.jpg"),
        ({"uncertainty": np.array([None] * 40)}, "no κ head"),
        ({"uncertainty": np.array([0.5] * 39 + [None])}, "row 39 is not finite"),
        ({"uncertainty": np.array([np.inf] + [0.5] * 39)}, "row 0 is not finite"),
    ],
)
def test_images_that_differ_and_missing_values_are_one_line(write, compare, change, said):
    kappa, entropy = values()
    a = write("a", kappa, entropy)
    b = write("b", kappa, **{"uncertainty": entropy, **change})
    code, found, err = compare(a, b)
    assert (code, found) == (2, None)
    assert one_line(err, said), err


def test_fewer_images_are_one_line(write, compare):
    a, b = write("a", *values(40)), write("b", *values(30))
    code, _, err = compare(a, b)
    assert code == 2
    assert one_line(err, "40 and 30, row 30 is in one of them alone"), err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["a"], "two evaluation folders first, not 1"),
        (["a", "a", "a"], "two evaluation folders first, not 3"),
        (["a", "broken"], "cannot be read"),
        (["bare", "a"], "no column 'uncertainty'"),
        (["empty", "a"], "holds no image"),
        (["a", "a", "--column-a", "norm"], "norm"),
        (["a", "a", "--shuffles", "0"], "--shuffles"),
    ],
    ids=str,
)
def test_what_is_no_evaluation_is_one_line(write, compare, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    write("a", *values())
    write("empty", *values(0))
    for name in ("broken", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "predictions.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"row": [1], "path": ["x"]}), tmp_path / "bare" / "predictions.parquet")
    code, found, err = compare(*arguments)
    assert (code, found) == (2, None)
    assert one_line(err, said), err


def test_a_folder_that_cannot_be_written_is_one_line(write, tmp_path, capsys):
    a = write("a", *values())
    (tmp_path / "file").write_text("")
    assert main(["compare", a, a, "--output-dir", str(tmp_path / "file" / "out")]) == 2
    assert one_line(err := capsys.readouterr().err, "cannot be written"), err
