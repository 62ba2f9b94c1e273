"""Neighbours by way of bfloat16 are those of float64, proved or searched again."""

import numpy as np
import pytest
import torch

from vissl_zoo.evaluation import neighbours
from vissl_zoo.evaluation.neighbours import by_bfloat16, in_float32, nearest


def data(kind, count, seed, width=40):
    """Embeddings (count, width) float32 of very different lengths."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width))
    if kind == "cone":  # all cosines above .99
        x = 0.05 * x + np.random.default_rng(9).standard_normal(width)
    elif kind == "clusters":
        x = 0.3 * x + np.random.default_rng(9).standard_normal((5, width))[rng.integers(0, 5, count)]
    elif kind == "twins":  # hundreds of images in thirty places
        x = np.random.default_rng(9).standard_normal((30, width))[rng.integers(0, 30, count)]
    return torch.from_numpy((x * rng.uniform(0.1, 10, (count, 1))).astype(np.float32))


def cosines(queries, bank):
    queries, bank = (x.double().numpy() for x in (queries, bank))
    queries, bank = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, bank))
    return queries @ bank.T


@pytest.mark.parametrize("kind", ["noise", "cone", "clusters", "twins"])
@pytest.mark.parametrize("way", [in_float32, by_bfloat16])
@pytest.mark.parametrize("k, chunk, bank_chunk", [(1, 32, 5000), (20, 7, 700), (60, 100, 5000)])
def test_the_nearest_are_those_of_float64(kind, way, k, chunk, bank_chunk):
    queries, bank = data(kind, 90, 1), data(kind, 3003, 0)
    unit = torch.nn.functional.normalize(queries, dim=1)
    values, indices = way(unit, bank, k, chunk, bank_chunk)
    exact = cosines(queries, bank)
    best = -np.sort(-exact, axis=1)[:, :k]
    assert np.abs(values.numpy() - best).max() < 1e-6
    assert np.abs(np.take_along_axis(exact, indices.numpy(), 1) - best).max() < 1e-6
    assert all(len(set(row)) == k for row in indices.tolist())


def test_a_proof_is_found_mostly_and_never_wrongly():
    queries, bank = data("clusters", 400, 1), data("clusters", 3003, 0)
    unit = torch.nn.functional.normalize(queries, dim=1)
    for spare in (0, 20, 200):
        values, _, proved = neighbours._Candidates(bank, 20 + spare, 64, 1000).nearest(unit, 20)
        best = -np.sort(-cosines(queries, bank), axis=1)[:, :20]
        right = np.abs(values.numpy() - best).max(1) < 1e-6
        assert right[proved.numpy()].all()
        if spare == 0:
            assert not right.all()  # the control: bfloat16 alone is wrong
        if spare == 200:
            assert proved.float().mean() > 0.9


def test_without_proofs_the_rest_goes_the_straight_way(monkeypatch):
    """In thirty places with a hundred twins each no bound can tell the 20th from the 21st."""
    queries, bank = data("twins", 64, 1), data("twins", 3003, 0)
    unit = torch.nn.functional.normalize(queries, dim=1)
    straight = []
    real = neighbours.in_float32
    monkeypatch.setattr(neighbours, "in_float32", lambda q, *a: straight.append(len(q)) or real(q, *a))
    values, _ = by_bfloat16(unit, bank, 20, 2, 5000)
    assert straight == [16] * 4
    assert torch.allclose(values, real(unit, bank, 20, 2, 5000)[0])


@pytest.mark.parametrize("width, m", [(10, 20), (40, 20), (100, 3), (1000, 5), (1003, 31), (5000, 1)])
def test_the_best_of_a_row(width, m):
    scores = torch.from_numpy(
        np.random.default_rng(0).permuted(np.tile(np.arange(width), (9, 1)), axis=1)
    ).float()
    values, columns = neighbours._best(scores, m)
    assert torch.equal(scores.gather(1, columns), values)
    expected = scores.topk(min(m, width), dim=1).values
    assert torch.equal(values.sort(dim=1, descending=True).values, expected)


def test_large_searches_are_tried_both_ways_and_small_ones_not(monkeypatch):
    tried = []
    monkeypatch.setattr(neighbours, "_narrow_pays", lambda *a: tried.append(a) or True)
    queries, bank = data("noise", 50, 1), data("noise", 2000, 0)
    small = nearest(queries, bank, 5)
    assert not tried
    monkeypatch.setattr(neighbours, "WORTH_A_TRIAL", 1e3)
    large = nearest(queries, bank, 5)
    assert len(tried) == 1
    assert torch.allclose(small[0], large[0], atol=1e-6)
    assert torch.equal(small[1], large[1])
    nearest(queries, bank, 5, exact=True)
    assert len(tried) == 1


def test_the_trial_itself_runs():
    unit = torch.nn.functional.normalize(data("noise", 50, 1), dim=1)
    assert neighbours._narrow_pays(unit, data("noise", 2000, 0), 200, 16) in (True, False)


def test_the_bound_on_rounding_holds_for_bfloat16():
    """Half the distance of two neighbours, 2^-7 above 1: all proofs stand on it."""
    x = torch.linspace(1, 2, 2**16 + 1)
    share = ((x.bfloat16().float() - x).abs() / x).max().item()
    assert 0.9 * neighbours.UNIT < share <= neighbours.UNIT
