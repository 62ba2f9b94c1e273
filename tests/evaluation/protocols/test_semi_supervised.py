"""Semi-supervised fine-tuning: which images are drawn, what is trained, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.protocols.semi_supervised import Options, draw_labelled, evaluate, with_classifier

COLOURS = np.array([[220, 40, 40], [40, 200, 40], [40, 40, 220]])


@pytest.fixture
def evaluation(write_split, model, tmp_path, monkeypatch):
    """Images whose class is their colour; one in five of the training images has no label."""
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    tables = []
    for seed, (split, count) in enumerate([("train", 60), ("test", 15)]):
        labels = np.arange(count) % 3
        noise = np.random.default_rng(seed).integers(-30, 31, (count, 16, 16, 3))
        images = (COLOURS[labels][:, None, None] + noise).astype(np.uint8)
        labels[::5] = -1
        tables.append(open_images(write_split(tmp_path / f"{split}.parquet", images, labels)))
    return Evaluation(model, None, *tables, 16, tmp_path, workers=1)


@pytest.mark.parametrize(
    "share, each",
    [
        (0.001, [1, 1, 1]),
        (0.01, [1, 1, 1]),
        (0.1, [10, 10, 5]),  # 29.5 of 295 labels, and one class has only five images
        (0.5, [49, 49, 5]),
        (1, [98, 98, 5]),
    ],
)
def test_the_same_number_of_each_class(share, each):
    labels = np.random.default_rng(0).permutation(np.repeat([-1, 2, 7, 9], [40, 100, 190, 5]))
    drawn = draw_labelled(labels, share, seed=3)
    assert [int((labels[drawn] == c).sum()) for c in (2, 7, 9)] == each
    assert len(np.unique(drawn)) == len(drawn) == sum(each)
    assert np.array_equal(drawn, draw_labelled(labels, share, seed=3))
    if share < 1:
        assert not np.array_equal(drawn, draw_labelled(labels, share, seed=4))


def test_nothing_to_draw_without_labels():
    assert len(draw_labelled(np.full(5, -1), 0.1, 0)) == 0


def test_off_by_default(evaluation):
    assert list(evaluate(evaluation, Options())) == []


def test_it_learns_the_colours_and_leaves_the_model_alone(evaluation):
    before = {k: v.clone() for k, v in evaluation.model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    # The rates are low: with the defaults so few steps end elsewhere after another rounding of the views.
    options = Options(epochs=20, percents=(2.5, 50), batch_size=8, lr=0.02, classifier_lr=0.2)
    found = dict(evaluate(evaluation, options))
    assert list(found) == [
        f"semi_supervised.percent_{share}.{name}"
        for share in ("2_5", "50")
        for name in ("labels", "top1", "scratch_top1")
    ]
    assert found["semi_supervised.percent_2_5.labels"] == 3
    assert found["semi_supervised.percent_50.labels"] == 24
    assert found["semi_supervised.percent_50.top1"] == 1
    assert found["semi_supervised.percent_50.scratch_top1"] > 0.5
    assert all(torch.equal(before[k], v) for k, v in evaluation.model.state_dict().items())
    assert not evaluation.model.training
    assert torch.equal(state, torch.get_rng_state())  # draws are its own
    few = dict(evaluate(evaluation, replace(options, percents=(2.5,))))
    assert few == {name: found[name] for name in few}


def test_without_scratch(evaluation):
    found = dict(evaluate(evaluation, Options(epochs=1, percents=(10,), scratch=False)))
    assert found.keys() == {"semi_supervised.percent_10.labels", "semi_supervised.percent_10.top1"}


def test_too_few_labels_are_told(evaluation):
    labels = np.full(60, -1)
    labels[7] = 1
    evaluation.train.labels = labels
    found = dict(evaluate(evaluation, Options(epochs=1, percents=(1,))))
    assert found["semi_supervised.percent_1.labels"] == 1
    assert isinstance(found["semi_supervised.percent_1.top1"], Undefined)


@pytest.mark.parametrize("name", ["vi_simsiam", "simsiam_resnet18_cifar", "test_vit", "dino", "test_resnet"])
@pytest.mark.parametrize("scratch", [False, True])
def test_the_network_is_the_same_with_a_classifier(name, scratch, evaluation):
    """Its weights are kept to fine-tune, and all of them are new from scratch; neither has a κ head."""
    arguments = {"backbone": "test_resnet", "latent_dim": 16} if name in ("vi_simsiam", "dino") else {}
    make = timm.create_model if name.startswith("test_") else vissl_zoo.create_model
    if name == "test_vit":
        arguments["img_size"] = 96  # not its default: from scratch it must be the same
    evaluation.model = make(name, num_classes=0, **arguments).eval()
    if name == "test_resnet":
        vissl_zoo.add_kappa_head(evaluation.model)
    with torch.no_grad():
        for parameter in evaluation.model.parameters():
            parameter.add_(0.1)
    given = evaluation.model.state_dict()
    found = with_classifier(evaluation, 4, scratch=scratch).state_dict()
    trunk = {k for k in given if not k.startswith(("kappa_head", "prototype_head"))}
    added = found.keys() - given.keys()
    assert trunk <= found.keys()
    assert all(k.startswith(("fc.", "head.")) for k in added)
    floats = [k for k, p in evaluation.model.named_parameters() if k in trunk]
    assert all(torch.equal(found[k], given[k]) != scratch for k in floats)
    assert all(given[k].shape == found[k].shape for k in trunk)
    assert not any(k.startswith(("kappa_head", "prototype_head")) for k in found)
