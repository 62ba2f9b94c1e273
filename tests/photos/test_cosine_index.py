"""The index against comparison with all."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from vissl_zoo.photos import cosine_index, duplicates, selection
from vissl_zoo.photos.cosine_index import CellIndex, ExactIndex, use_index
from vissl_zoo.photos.duplicates import find_duplicates, nearest_in, recall_of
from vissl_zoo.photos.selection import most_typical, typicality, unit_length

pytest.importorskip("faiss", reason="the extra `scale` is not installed")
COUNT, DIM = 3000, 32


@pytest.fixture(scope="module")
def points():
    """60 clusters; a third of the points repeat another, at cosines from .9 to 1."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(60, DIM))[rng.integers(60, size=COUNT)] + 0.7 * rng.normal(size=(COUNT, DIM))
    repeats = rng.permutation(COUNT)[: COUNT // 3]
    noise = rng.uniform(0, 0.4, (len(repeats), 1)) * rng.normal(size=(len(repeats), DIM))
    found[repeats] = found[rng.integers(COUNT, size=len(repeats))] + noise
    return unit_length(found)


def test_the_nearest_are_those_of_an_exact_search(points):
    exact, cells = ExactIndex(points), CellIndex(points, probes=10_000)
    queries = points[::7]
    assert [found[0].tolist() for found in (exact.nearest(queries), cells.nearest(queries))] == [
        [-1] * len(queries)
    ] * 2
    assert not np.isfinite(cells.nearest(queries)[1]).any()
    for rows in (np.arange(1000), np.zeros(0, dtype=np.int64), np.arange(2000, COUNT)):
        exact.add(rows)
        cells.add(rows)
    cosines = queries @ points.T
    cosines[:, 1000:2000] = -1
    for row, cosine in (exact.nearest(queries), cells.nearest(queries)):
        np.testing.assert_allclose(
            cosine, cosines.max(axis=1), atol=1e-3
        )  # half precision may choose a near second
        np.testing.assert_allclose(cosine, cosines[np.arange(len(row)), row], atol=1e-6)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("probes, least", [(10_000, 0.999), (16, 0.95)])
def test_duplicates_by_index_are_those_by_comparison(points, centre, probes, least):
    order = np.random.default_rng(1).permutation(COUNT)[: COUNT - 100]
    exact = find_duplicates(points, order, 0.95, centre=centre)
    found = find_duplicates(points, order, 0.95, centre=centre, probes=probes)
    assert exact.kept.sum() < 0.9 * len(order)
    assert np.mean(exact.kept == found.kept) > least
    assert (found.cosine[~found.kept & (found.group >= 0)] >= 0.95 - 1e-6).all()
    there, seen = recall_of(exact, points, order, 0.95, centre=centre)
    assert there == seen > 100
    there, seen = recall_of(found, points, order, 0.95, centre=centre)
    assert seen >= least * there


def test_recall_tells_what_was_missed(points):
    order = np.arange(COUNT)
    nothing = find_duplicates(points, order, 1.0)
    there, seen = recall_of(nothing, points, order, 0.95, centre=False)
    assert seen < 0.1 * there


def test_the_nearest_of_another_set(points):
    queries, reference = points[:500], points[500:]
    row, cosine = nearest_in(queries, reference)
    found, near = nearest_in(queries, reference, probes=10_000)
    assert np.mean(row == found) > 0.99
    np.testing.assert_allclose(near, cosine, atol=1e-3)


def test_few_images_are_compared_and_without_the_library_many(monkeypatch, capsys):
    assert not use_index(20_000)
    assert use_index(20_001)
    monkeypatch.setattr(cosine_index.importlib.util, "find_spec", lambda name: None)
    assert not use_index(20_001)
    assert 'pip install "vissl_zoo[scale]"' in capsys.readouterr().err


@pytest.mark.parametrize("least, asked", [(0.99, 1), (1.01, 2)])
def test_many_are_asked_of_an_index_which_looks_further_where_it_misses(points, least, asked, monkeypatch):
    monkeypatch.setattr(cosine_index, "EXACT_UP_TO", 2000)
    monkeypatch.setattr(duplicates, "PROBES", (10_000, 10_000))
    monkeypatch.setattr(duplicates, "LEAST_RECALL", least)
    made = []
    monkeypatch.setattr(
        duplicates, "build_index", lambda *how: made.append(how) or cosine_index.build_index(*how)
    )
    order = np.arange(COUNT)
    groups, said = duplicates.group_many(points, order, 0.9)
    exact = find_duplicates(points, order, 0.9)
    assert np.mean(groups.kept == exact.kept) > 0.998  # half precision, at the edge of the threshold
    assert len(made) - 1 == asked
    assert said.startswith("An index was asked: of 2,000 images compared with all, ")
    assert duplicates.group_many(points, order[:2000], 0.9)[1] == ""


def test_the_most_typical_by_an_index_are_those_by_comparison(points, monkeypatch):
    exact = most_typical(points, 30)
    told = typicality(points)
    by_index = typicality(points, indexed=True)
    assert spearmanr(told, by_index).statistic > 0.95
    monkeypatch.setattr(cosine_index, "EXACT_UP_TO", 2000)
    monkeypatch.setattr(selection, "COMPARED", 100)
    monkeypatch.setattr(selection, "PROBES", (10_000,))
    found = most_typical(points, 30)
    assert len(np.intersect1d(exact, found)) > 25


def test_a_near_copy_does_not_hide_a_copy(points):
    """Half precision cannot tell them apart."""
    rng = np.random.default_rng(3)
    near = unit_length(points[:200] + 2e-3 * rng.normal(size=(200, DIM)))
    index = CellIndex(np.concatenate([near, points]), probes=10_000)
    index.add(np.concatenate([np.arange(200), 200 + np.arange(COUNT)]))
    _, cosine = index.nearest(points[:200])
    assert (cosine >= 1 - 1e-6).all()
