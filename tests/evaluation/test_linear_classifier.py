"""The linear classifier against scikit-learn's, and the learning rate chosen without a look at the test set."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.linear_classifier import (
    LinearOptions,
    gradients,
    linear_predictions,
    shuffled,
    train,
)
from vissl_zoo.inference import Embedded
from vissl_zoo.models import Representation

QUICK = LinearOptions(epochs=5, learning_rates=(0.4, 6.4, 25.6))


def clusters(count, seed, classes=4, width=12, spread=1.0):
    """Embeddings (count, width) float32, positive as after a ReLU, and classes (count,)."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    labels = np.arange(count) % classes
    return np.maximum(centres[labels] + spread * rng.standard_normal((count, width)), 0).astype("f4"), labels


def told(rows, embedding, kappa=None, uncertainty=None):
    """What a model is taken to say of images."""
    sizes = np.full((len(rows), 2), 16)
    return Embedded(rows, Representation(embedding, kappa, uncertainty), sizes, [None] * len(rows))


def evaluation_of(learnt, tested, seed=0):
    """An evaluation with the given embeddings (N, F) and labels (N,), in the place of images."""

    def features(x):
        return told(np.arange(len(x)), np.asarray(x, dtype=np.float32))

    tables = [SimpleNamespace(labels=np.asarray(labels)) for _, labels in (learnt, tested)]
    evaluation = Evaluation(torch.nn.Linear(1, 1), None, *tables, 8, None, seed=seed)
    evaluation.train_features, evaluation.test_features = features(learnt[0]), features(tested[0])
    return evaluation


LEARNT, TESTED = clusters(400, 0), clusters(200, 1)


@pytest.mark.parametrize("spread", [0.05, 1.5])
def test_as_accurate_as_logistic_regression(spread):
    learnt, tested = clusters(2500, 0, spread=spread), clusters(2500, 1, spread=spread)
    reference = LogisticRegression(max_iter=1000).fit(*learnt).score(*tested)
    result = linear_predictions(evaluation_of(learnt, tested))
    assert result.top1 == pytest.approx(reference, abs=0.015)
    assert reference > 0.6
    if spread < 0.1:
        assert result.top1 == 1


@pytest.mark.parametrize("scale", [0.01, 100])
def test_the_scale_of_embeddings_hardly_matters(scale):
    (x, y), (t, u) = clusters(2000, 0), clusters(2000, 1)
    options = LinearOptions(learning_rates=(12.8,))
    plain = linear_predictions(evaluation_of((x, y), (t, u)), options)
    scaled = linear_predictions(evaluation_of((x * scale, y), (t * scale, u)), options)
    assert scaled.top1 == pytest.approx(plain.top1, abs=0.015)


def test_rates_trained_together_are_those_trained_alone():
    x, y = map(torch.from_numpy, LEARNT)

    def run(rates):
        return train(((x[i], y[i]) for i in shuffled(400, 100, 3, 0)), 12, 12, 4, rates, seed=5)

    weight, bias = run([0.1, 1.6, 12.8])
    assert weight.shape == (3, 4, 12)
    for i, rate in enumerate([0.1, 1.6, 12.8]):
        alone = run([rate])
        assert torch.allclose(weight[i], alone[0][0], atol=1e-5)
        assert torch.allclose(bias[i], alone[1][0], atol=1e-5)
    assert not torch.allclose(weight[0], weight[1], atol=1e-4)


def test_gradients_are_those_of_autograd():
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(s, generator=generator) for s in ((3, 5, 12), (3, 5), (40, 12)))
    labels = torch.randint(5, (40,), generator=generator)
    leaves = [part.clone().requires_grad_() for part in (weight, bias)]
    for logits in torch.einsum("rcf,bf->rbc", leaves[0], x) + leaves[1][:, None]:
        torch.nn.functional.cross_entropy(logits, labels).backward(retain_graph=True)
    found = gradients(weight, bias, x, labels)
    for leaf, gradient in zip(leaves, found, strict=True):
        assert (gradient - leaf.grad).norm() <= 1e-6 * leaf.grad.norm()


def test_batches_have_every_image_once_an_epoch():
    batches = list(shuffled(1030, 512, 2, seed=3))
    assert [len(b) for b in batches] == [344, 343, 343] * 2
    epochs = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert all((epoch.sort().values == torch.arange(1030)).all() for epoch in epochs)
    assert not torch.equal(*epochs)
    assert all(map(torch.equal, batches, shuffled(1030, 512, 2, seed=3)))


def test_the_rate_is_the_best_on_the_held_out_fifth():
    evaluation = evaluation_of(LEARNT, TESTED, seed=4)
    result = linear_predictions(evaluation, QUICK)
    held = evaluation.validation
    assert held.sum() == 80
    (x, y), (rest_x, rest_y) = ((LEARNT[0][m], LEARNT[1][m]) for m in (held, ~held))
    accuracy = []
    for rate in QUICK.learning_rates:
        batches = (
            (torch.from_numpy(rest_x)[i], torch.from_numpy(rest_y)[i]) for i in shuffled(320, 512, 5, 4)
        )
        weight, bias = train(batches, 5, 12, 4, [rate], seed=4)
        accuracy.append(((x @ weight[0].numpy().T + bias[0].numpy()).argmax(1) == y).mean())
    assert result.lr == QUICK.learning_rates[int(np.argmax(accuracy))]
    assert len(set(accuracy)) > 1

    # What is reported was trained at this rate on all training images.
    everything = (
        (torch.from_numpy(LEARNT[0])[i], torch.from_numpy(LEARNT[1])[i]) for i in shuffled(400, 512, 5, 4)
    )
    weight, bias = train(everything, 5, 12, 4, [result.lr], seed=4)
    scores = TESTED[0] @ weight[0].numpy().T + bias[0].numpy()
    assert np.array_equal(result.predictions, scores.argmax(1))
    assert np.allclose(result.max_probability, softmax(scores.astype("f8"), axis=1).max(1), atol=1e-5)
    assert np.array_equal(result.correct, scores.argmax(1) == TESTED[1])
    assert result.top1 == pytest.approx(result.correct.mean())


def test_the_test_set_has_no_say_in_the_rate():
    tests = (TESTED, (TESTED[0], (TESTED[1] + 1) % 4), clusters(9, 7, spread=9))
    assert len({linear_predictions(evaluation_of(LEARNT, t), QUICK).lr for t in tests}) == 1


def test_of_equally_good_rates_the_one_of_lower_cross_entropy_is_kept():
    """On separable classes all are right, and the higher of two low rates is the surer."""
    learnt = clusters(200, 0, spread=0.01)
    for rates in ((6.4, 3.2), (3.2, 6.4)):
        evaluation = evaluation_of(learnt, learnt)
        result = linear_predictions(evaluation, LinearOptions(learning_rates=rates))
        rest = [torch.from_numpy(part[~evaluation.validation]) for part in learnt]
        batches = ((rest[0][i], rest[1][i]) for i in shuffled(160, 512, 100, 0))
        weight, bias = (t.numpy() for t in train(batches, 100, 12, 4, rates))
        x, y = (part[evaluation.validation] for part in learnt)
        logs = log_softmax(np.einsum("rcf,nf->rnc", weight, x) + bias[:, None], axis=2)
        assert (logs.argmax(2) == y).all()
        assert result.lr == rates[int(np.argmax(logs[:, np.arange(40), y].mean(1)))]


def test_the_seed_fixes_everything():
    first, again, other = (linear_predictions(evaluation_of(LEARNT, TESTED, s), QUICK) for s in (1, 1, 2))
    assert np.array_equal(first.max_probability, again.max_probability)
    assert not np.array_equal(first.max_probability, other.max_probability)


def test_top5_is_counted_by_hand():
    learnt, tested = clusters(400, 0, classes=8, spread=3), clusters(100, 1, classes=8, spread=3)
    evaluation = evaluation_of(learnt, tested)
    options = LinearOptions(epochs=20, learning_rates=(6.4,))
    result = linear_predictions(evaluation, options)
    batches = (
        (torch.from_numpy(learnt[0])[i], torch.from_numpy(learnt[1])[i]) for i in shuffled(400, 512, 20, 0)
    )
    weight, bias = train(batches, 20, 12, 8, [6.4])
    scores = tested[0] @ weight[0].numpy().T + bias[0].numpy()
    rank = (scores > scores[np.arange(100), tested[1]][:, None]).sum(1)
    assert result.top5 == pytest.approx((rank < 5).mean())
    assert result.top1 < result.top5 < 1
    assert linear_predictions(evaluation_of(LEARNT, TESTED), QUICK).top5 is None


def test_unlabelled_images_neither_teach_nor_count():
    labels, asked = LEARNT[1].copy(), TESTED[1].copy()
    labels[::3], asked[::2] = -1, -1
    garbage = LEARNT[0].copy()
    garbage[::3] = 1e6
    result = linear_predictions(evaluation_of((LEARNT[0], labels), (TESTED[0], asked)), QUICK)
    same = linear_predictions(evaluation_of((garbage, labels), (TESTED[0], asked)), QUICK)
    assert np.array_equal(result.max_probability, same.max_probability)
    assert (result.predictions >= 0).all()  # predicted all the same
    assert not result.correct[::2].any()
    assert result.top1 == pytest.approx((result.predictions == TESTED[1])[1::2].mean())


def test_labels_may_be_any_integers_and_some_only_in_the_test_set():
    ids = np.array([10**12, 3, 77, 8])
    order = np.argsort(np.argsort(ids))  # classes are numbered in the order of their labels
    plain = linear_predictions(
        evaluation_of((LEARNT[0], order[LEARNT[1]]), (TESTED[0], order[TESTED[1]])), QUICK
    )
    strange = ids[TESTED[1]]
    strange[:5] = 12345
    result = linear_predictions(evaluation_of((LEARNT[0], ids[LEARNT[1]]), (TESTED[0], strange)), QUICK)
    assert np.array_equal(result.predictions, np.sort(ids)[plain.predictions])
    assert not result.correct[:5].any()


def test_all_right_all_wrong_and_one_class():
    learnt, tested = clusters(200, 0, spread=0.01), clusters(50, 1, spread=0.01)
    options = LinearOptions(learning_rates=(12.8,))
    assert linear_predictions(evaluation_of(learnt, tested), options).top1 == 1
    assert linear_predictions(evaluation_of(learnt, (tested[0], tested[1] + 4)), options).top1 == 0
    one = linear_predictions(evaluation_of((learnt[0], np.zeros(200, int)), tested), QUICK)
    assert one.top1 == pytest.approx((tested[1] == 0).mean())
    assert (one.max_probability == 1).all()


@pytest.mark.parametrize("count, defined", [(3, False), (4, False), (5, True), (7, True)])
def test_tiny_sets(count, defined):
    tiny = LEARNT[0][:count], LEARNT[1][:count]
    assert isinstance(linear_predictions(evaluation_of(tiny, TESTED), QUICK), Undefined) is not defined


def test_undefined_without_labels_to_choose_by_or_to_test_with():
    evaluation = evaluation_of(LEARNT, TESTED)
    labels = np.where(evaluation.validation, -1, LEARNT[1])
    for learnt, tested in (((LEARNT[0], labels), TESTED), (LEARNT, (TESTED[0], TESTED[1] * 0 - 1))):
        result = linear_predictions(evaluation_of(learnt, tested), QUICK)
        assert isinstance(result, Undefined)
        assert "label" in result.reason


def test_trained_once_for_all_who_ask_unless_asked_otherwise():
    evaluation = evaluation_of(LEARNT, TESTED)
    first = linear_predictions(evaluation, QUICK)
    assert evaluation.memo["linear"] is first
    assert linear_predictions(evaluation) is first
    assert linear_predictions(evaluation, QUICK) is first
    other = LinearOptions(epochs=1, learning_rates=(3.2,))
    assert linear_predictions(evaluation, other).lr == 3.2
