"""Near-duplicates against the same rule written as two loops."""

import tracemalloc

import numpy as np
import pytest

from vissl_zoo.photos import cosine_index, duplicates
from vissl_zoo.photos.duplicates import find_duplicates, random_cosines


def slowly(embeddings, order, threshold):
    """Kept rows, by the rule as it is written."""
    points = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    kept = []
    for row in order:
        if all(points[row] @ points[k] < threshold for k in kept):
            kept.append(row)
    return sorted(kept)


@pytest.mark.parametrize("block, chunk", [(1024, 8192), (7, 11)])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_the_rule(block, chunk, threshold, monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    monkeypatch.setattr(duplicates, "_CHUNK", chunk)
    monkeypatch.setattr(cosine_index, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 6))
    embeddings = (base[rng.integers(40, size=150)] + rng.normal(0, 0.25, (150, 6))) * rng.uniform(
        1, 9, (150, 1)
    )
    order = rng.permutation(150)
    groups = find_duplicates(embeddings.astype(np.float32), order, threshold)
    assert np.flatnonzero(groups.kept).tolist() == slowly(embeddings, order, threshold)
    points = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    place = np.argsort(order)
    for row in np.flatnonzero(~groups.kept):
        [keeper] = np.flatnonzero(groups.kept & (groups.group == groups.group[row]))
        assert place[keeper] < place[row]
        assert groups.group[keeper] == groups.group[row] >= 0
        assert groups.cosine[row] == pytest.approx(points[row] @ points[keeper], abs=1e-5)
        rivals = [k for k in np.flatnonzero(groups.kept) if place[k] < place[row]]
        assert groups.cosine[row] == pytest.approx(max(points[rivals] @ points[row]), abs=1e-5)
    sizes = np.bincount(groups.group[groups.group >= 0])
    assert (np.diff(sizes) <= 0).all()
    assert sizes.min() >= 2


def test_a_chain_is_not_one_group():
    """a ~ b ~ c, but a and c are not alike: c stays, where connected components would drop it for a."""
    angles = np.radians([0, 15, 30])
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = find_duplicates(chain, np.arange(3), np.cos(np.radians(20)))
    assert groups.kept.tolist() == [True, False, True]


def test_equal_images_zeros_and_rows_that_are_left_alone():
    rng = np.random.default_rng(0)
    row = rng.normal(size=2048)
    embeddings = np.stack([row, 3 * row, 0 * row, 0 * row, np.full(2048, np.nan)]).astype(np.float32)
    groups = find_duplicates(embeddings, np.array([1, 0, 2, 3]), 1.0)
    assert groups.kept.tolist() == [False, True, True, True, False]  # the last was not compared
    assert groups.group.tolist() == [0, 0, -1, -1, -1]
    assert not find_duplicates(embeddings, np.array([], dtype=int), 0.9).kept.any()


def test_memory_does_not_grow_with_the_square():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(20_000, 16)).astype(np.float32)
    embeddings[10_000:] = embeddings[:10_000]
    tracemalloc.start()
    groups = find_duplicates(embeddings, np.arange(20_000), 0.999)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert groups.kept.sum() == 10_000
    assert peak < 200e6  # 20,000² float32 would be 1,600 MB


def test_random_cosines_are_of_different_images():
    assert random_cosines(np.eye(2), 100).max() == 0
