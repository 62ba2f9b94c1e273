"""kNN against scikit-learn's, and k chosen without a look at the test set."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from vissl_zoo.evaluation import neighbours
from vissl_zoo.evaluation.neighbours import (
    TEMPERATURE,
    VALIDATION_SHARE,
    knn,
    largest_share,
    nearest,
    predict_for_every_k,
)


def clusters(count, seed, classes=4, width=12, spread=1.5):
    """Features (count, width) float32 and classes (count,); vectors of very different lengths."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    labels = rng.integers(0, classes, count)
    features = centres[labels] + spread * rng.standard_normal((count, width))
    return (features * rng.uniform(0.1, 10, (count, 1))).astype(np.float32), labels


def by_scikit_learn(bank, bank_labels, queries, k):
    def votes(distance):
        return np.exp((1 - distance) / TEMPERATURE)

    classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=votes)
    return classifier.fit(bank.astype(np.float64), bank_labels).predict(queries.astype(np.float64))


BANK, QUERIES = clusters(300, 0), clusters(150, 1)


@pytest.mark.parametrize("k", [1, 2, 5, 20, 100, 300])
def test_predictions_are_those_of_scikit_learn(k):
    similarity, index = nearest(torch.from_numpy(QUERIES[0]), torch.from_numpy(BANK[0]), k)
    found = predict_for_every_k(similarity, torch.from_numpy(BANK[1])[index], 4)[:, -1].numpy()
    assert np.array_equal(found, by_scikit_learn(*BANK, QUERIES[0], k))


def test_every_k_is_what_each_k_alone_gives():
    similarity, index = nearest(*map(torch.from_numpy, (QUERIES[0], BANK[0])), 60)
    labels = torch.from_numpy(BANK[1])[index]
    every = predict_for_every_k(similarity, labels, 4)
    assert every.shape == (150, 60)
    for k in range(1, 61):
        weights = torch.exp(similarity[:, :k].double() / TEMPERATURE)
        votes = torch.stack([(weights * (labels[:, :k] == c)).sum(1) for c in range(4)], 1)
        assert torch.equal(every[:, k - 1], votes.argmax(1))


def test_nearest_are_sorted_cosines():
    similarity, index = nearest(*map(torch.from_numpy, (QUERIES[0], BANK[0])), 300)
    assert (similarity.diff(dim=1) <= 0).all()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (QUERIES[0], BANK[0])]
    cosine = unit[0] @ unit[1].T
    assert np.allclose(np.take_along_axis(cosine, index.numpy(), 1), similarity, atol=1e-6)
    assert (index.sort(1).values == torch.arange(300)).all()


def test_k_is_chosen_on_a_fifth_of_the_bank():
    """Computed again with scikit-learn, for every k, on the split that the seed gives."""
    features, labels = BANK
    order = np.random.default_rng(7).permutation(300)
    held, rest = order[: int(VALIDATION_SHARE * 300)], order[int(VALIDATION_SHARE * 300) :]
    accuracy = [
        (by_scikit_learn(features[rest], labels[rest], features[held], k) == labels[held]).mean()
        for k in range(1, 201)
    ]
    result = knn(*BANK, *QUERIES, seed=7)
    assert result.k == 1 + int(np.argmax(accuracy))
    predictions = by_scikit_learn(*BANK, QUERIES[0], result.k)
    assert np.array_equal(result.predictions, predictions)
    assert np.array_equal(result.correct, predictions == QUERIES[1])
    assert result.top1 == pytest.approx((predictions == QUERIES[1]).mean())


def test_k_does_not_depend_on_the_test_set():
    chosen = {
        knn(*BANK, queries, labels).k
        for queries, labels in (QUERIES, (QUERIES[0], (QUERIES[1] + 1) % 4), clusters(9, 5))
    }
    assert len(chosen) == 1


def test_separable_classes_are_all_right_and_shuffled_labels_are_chance():
    easy = knn(*clusters(200, 0, spread=0.1), *clusters(100, 1, spread=0.1))
    assert easy.top1 == 1
    shuffled = np.random.default_rng(0).permutation(BANK[1])
    assert knn(BANK[0], shuffled, *QUERIES).top1 < 0.45


@pytest.mark.parametrize("count", [5, 6, 9, 30])
def test_small_banks(count):
    result = knn(BANK[0][:count], BANK[1][:count], *QUERIES)
    assert 1 <= result.k <= count


def test_a_class_that_the_bank_lacks_is_wrong_and_no_error():
    result = knn(*BANK, QUERIES[0][:3], np.array([9, 9, 9]))
    assert result.top1 == 0


@pytest.mark.parametrize("bank, queries", [(4, 3), (0, 3), (10, 0)])
def test_too_few(bank, queries):
    with pytest.raises(ValueError, match=f"not {bank} and {queries}"):
        knn(BANK[0][:bank], BANK[1][:bank], QUERIES[0][:queries], QUERIES[1][:queries])


def test_labels_may_be_any_integers():
    """Such as the ids of a data base: votes must not need a column for each integer up to the largest."""
    rng = np.random.default_rng(0)
    bank, queries = (
        rng.standard_normal((40, 5)).astype(np.float32),
        rng.standard_normal((9, 5)).astype(np.float32),
    )
    labels, truth = np.arange(40) % 2, np.arange(9) % 2
    ids = np.array([10**12, 7])
    plain, sparse = knn(bank, labels, queries, truth), knn(bank, ids[labels], queries, ids[truth])
    assert (sparse.top1, sparse.k) == (plain.top1, plain.k)
    assert np.array_equal(sparse.predictions, ids[plain.predictions])


@pytest.mark.parametrize("cells", [1, 160, 10**6])
def test_chunks_of_queries_change_nothing(cells, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(11, 6, generator=generator), torch.randn(53, 6, generator=generator)
    similarity = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(bank, dim=1).T
    expected = similarity.topk(20, dim=1)
    monkeypatch.setattr(neighbours, "_CELLS", cells)
    values, indices = nearest(queries, bank, 20)
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(indices, expected.indices)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_share_of_the_votes(k):
    rng = np.random.default_rng(k)
    similarity = -np.sort(-rng.uniform(-1, 1, (20, k)), axis=1)
    labels = rng.choice([-5, 3, 10**12], (20, k))
    expected = []
    for cosines, classes in zip(similarity, labels, strict=True):
        votes = {}
        for cosine, name in zip(cosines, classes, strict=True):
            votes[name] = votes.get(name, 0) + np.exp(cosine / TEMPERATURE)
        expected.append(max(votes.values()) / sum(votes.values()))
    assert largest_share(similarity, labels) == pytest.approx(expected, abs=1e-12)


def test_a_result_tells_how_sure_its_neighbours_are():
    result = knn(*BANK, *QUERIES)
    similarity, index = nearest(*map(torch.from_numpy, (QUERIES[0], BANK[0])), result.k)
    assert np.allclose(result.similarity, similarity.mean(1))
    assert np.allclose(result.share, largest_share(similarity.numpy(), BANK[1][index]))
