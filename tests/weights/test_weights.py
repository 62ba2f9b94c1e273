"""The table of shipped weights: data that is read, written in one step, and true of the files beside it."""

import re

import pytest

from vissl_zoo import weights
from vissl_zoo.weights import ShippedWeights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path


def row(name, content=b"x", folder=None):
    if folder is not None:
        (folder / f"{name}.safetensors").write_bytes(content)
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # sha256sum of "x"
    return ShippedWeights(
        name, f"{name}.safetensors", digest, {"input_size": [3, 32, 32]}, {"latent_dim": 8}, "κ"
    )


def test_without_a_table_nothing_is_shipped(folder):
    assert weights.shipped() == {}


def test_the_table_keeps_rows_and_order(folder):
    rows = {name: row(name) for name in ("b.y", "a.x")}
    weights.write_table(rows)
    assert list(weights.shipped().items()) == list(rows.items())
    assert [p.name for p in folder.iterdir()] == ["weights.json"]


def test_verify(folder):
    row("a.x", folder=folder).verify()
    with pytest.raises(RuntimeError, match=r"a\.x\.safetensors is not the file"):
        row("a.x", b"y", folder).verify()
    with pytest.raises(RuntimeError, match=r"b\.x needs .*a checkout of the repository has it"):
        row("b.x").verify()


def test_the_package_ships_what_its_table_says():
    """The real table: every file is there, the one that was shipped, named after a row with it, and no other is."""
    rows = weights.shipped()
    for shipped in rows.values():
        shipped.verify()
        assert rows[shipped.file.removesuffix(".safetensors")].file == shipped.file
        assert shipped.path.stat().st_size <= 40_000_000
    files = {p.name for p in weights.FOLDER.glob("*.safetensors") if not p.name.startswith(".")}
    assert files == {shipped.file for shipped in rows.values()}


def test_the_table_holds_no_path_of_a_machine(root):
    text = (root / "vissl_zoo" / "weights" / "weights.json").read_text(encoding="utf-8")
    assert not re.findall(r'"(?:/|~|[A-Z]:\\)[^"]*"', text)
