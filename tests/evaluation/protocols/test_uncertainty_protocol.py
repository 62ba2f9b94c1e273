"""The uncertainty protocol on given answers, recomputed by scikit-learn and by hand; what is undefined says why."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.evaluation.context import Evaluation, Undefined
from vissl_zoo.evaluation.evaluation_run import run_protocols, write_results
from vissl_zoo.evaluation.linear_classifier import LinearOptions, LinearResult
from vissl_zoo.evaluation.protocols import uncertainty_protocol as uncertainty
from vissl_zoo.inference import Embedded
from vissl_zoo.models import Representation

QUICK = uncertainty.Options(shuffles=50, resamples=50)
BESIDE = ("norm", "knn_distance", "two_view_cosine", "max_probability")


class Table(SimpleNamespace):
    """As many images as labels, or 30."""

    def __len__(self):
        return 30 if self.labels is None else len(self.labels)

    @property
    def rows(self):
        return np.arange(len(self))


def told(rows, embedding, kappa=None, uncertainty=None):
    """What a model is taken to say of images."""
    sizes = np.full((len(rows), 2), 16)
    return Embedded(rows, Representation(embedding, kappa, uncertainty), sizes, [None] * len(rows))


def evaluation_of(tmp_path, test_labels, train_labels, kappa, dino=False, linear=None):
    """An evaluation whose features, views and linear answers are given; nothing is decoded and no network runs."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((3, 5))

    def features(labels, kappa=None):
        count = 30 if labels is None else len(labels)
        embedding = 1.5 * rng.standard_normal((count, 5))
        embedding += 0 if labels is None else centres[np.maximum(labels, 0)]
        doubt = None if kappa is None else (1 / (1 + kappa)).astype(np.float32)
        return told(np.arange(count), embedding.astype(np.float32), kappa, doubt)

    model = SimpleNamespace(
        kappa_head=None if kappa is None else object(), prototype_head=object() if dino else None
    )
    train = None if train_labels is None else SimpleNamespace(labels=train_labels, path="d", split="train")
    test = Table(labels=test_labels, path="d", split="test", name=lambda row: f"row {row}")
    evaluation = Evaluation(model, None, train, test, 8, tmp_path)
    evaluation.test_features = features(test_labels, kappa)
    if train is not None:
        evaluation.train_features = features(train_labels)
    count = len(evaluation.test_features.rows)
    views = rng.standard_normal((2, count, 5))
    evaluation.memo["two_views"] = views / np.linalg.norm(views, axis=2, keepdims=True)
    if linear is None:
        linear = rng.random(count) < 0.7
    predictions = np.where(linear, -9 if test_labels is None else test_labels, 99)
    sure = np.round(rng.random(count), 1)  # with ties
    evaluation.memo["linear"] = LinearResult(linear.mean(), None, 1.6, predictions, sure, linear, None)
    evaluation.memo["linear_options"] = LinearOptions()
    return evaluation


def labelled(count, seed):
    return np.random.default_rng(seed).integers(0, 3, count)


def kappas(count, levels=40):
    """With ties, as bf16 would leave them."""
    return np.random.default_rng(5).integers(800, 800 + levels, count).astype(np.float32)


def naive_aurc(score, correct):
    """The mean over i of the expected error among the i surest, ties in random order."""
    total, taken, errors = 0.0, 0, 0.0
    for value in sorted(set(score.tolist()), reverse=True):
        group = ~correct[score == value]
        for place in range(1, len(group) + 1):
            total += (errors + group.mean() * place) / (taken + place)
        taken, errors = taken + len(group), errors + group.sum()
    return total / taken


def test_all_of_it_is_recomputed_from_predictions(tmp_path):
    test_labels = labelled(150, 1)
    test_labels[[3, 40]] = -1  # unknown: they count nowhere
    evaluation = evaluation_of(tmp_path, test_labels, labelled(200, 2), kappas(150), dino=True)
    results = run_protocols(evaluation, ["uncertainty"], {"uncertainty": QUICK})
    write_results(evaluation, results, "model", "command")
    table = Dataset.from_parquet(str(tmp_path / "predictions.parquet")).to_pandas()
    table = table[table.label >= 0]
    found = results.metrics["uncertainty"]
    for name in ("knn", "linear"):
        here, correct = found[name], (table[f"{name}_pred"] == table.label).to_numpy()
        assert 0 < correct.mean() < 1
        assert here["accuracy"] == pytest.approx(accuracy_score(table.label, table[f"{name}_pred"]), abs=1e-9)
        columns = ("embedding_norm", "knn_similarity", "two_view_cosine", f"{name}_probability")
        scores = {"kappa": table.kappa, "negative_entropy": -table.uncertainty}
        scores |= {key: table[column] for key, column in zip(BESIDE, columns, strict=True)}
        assert list(here["auroc"]) == list(here["aurc_by_score"])
        assert here["auroc"].keys() == scores.keys()
        for key, score in scores.items():
            score = score.to_numpy().astype(np.float64)
            assert here["auroc"][key]["value"] == pytest.approx(roc_auc_score(correct, score), abs=1e-9)
            assert set(here["auroc"][key]) == {"value", "p_value", "ci_low", "ci_high"}
            assert here["aurc_by_score"][key] == pytest.approx(naive_aurc(score, correct), abs=1e-9)
        kappa = table.kappa.to_numpy().astype(np.float64)
        assert here["aurc"] == here["aurc_by_score"]["kappa"]
        assert here["e_aurc"] == pytest.approx(here["aurc"] - naive_aurc(correct.astype(float), correct))
        for kind, chosen in (("correct", correct), ("wrong", ~correct)):
            expected = {"mean": kappa[chosen].mean(), "std": kappa[chosen].std()}
            assert here[f"kappa_{kind}"] == pytest.approx(expected)
        assert {f"uncertainty_{name}_{f}.png" for f in ("roc", "kappa", "risk")} <= {
            path.name for path in tmp_path.iterdir()
        }
    assert found["kappa"]["mean"] == pytest.approx(evaluation.test_features.kappa.mean())  # of all images
    assert not results.reasons


def test_names_of_the_paper_are_measured(tmp_path):
    evaluation = evaluation_of(tmp_path, labelled(90, 1), labelled(90, 2), kappas(90), dino=True)
    flat = run_protocols(evaluation, ["uncertainty"], {"uncertainty": QUICK}).flat()
    assert uncertainty.PAPER.keys() <= flat.keys()


@pytest.mark.parametrize("right, said", [(True, "correct"), (False, "wrong")])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_answers_of_one_kind(tmp_path, right, said, count):
    answers = np.full(count, right)
    evaluation = evaluation_of(
        tmp_path, np.zeros(count, int), np.zeros(20, int), kappas(count), linear=answers
    )
    found = dict(uncertainty.evaluate(evaluation, QUICK))
    for key in ("kappa", *BESIDE):
        assert said in found[f"uncertainty.linear.auroc.{key}"].reason
    assert found["uncertainty.linear.aurc"] == float(not right)
    assert found["uncertainty.linear.e_aurc"] == 0
    assert said in found["uncertainty.linear.logistic"].reason
    missing = "wrong" if right else "correct"
    assert isinstance(found[f"uncertainty.linear.kappa_{missing}"], Undefined)
    assert found[f"uncertainty.linear.kappa_{said}"]["mean"] == pytest.approx(kappas(count).mean())


def test_a_model_without_kappa_keeps_the_other_scores(tmp_path):
    evaluation = evaluation_of(tmp_path, labelled(60, 1), labelled(60, 2), None)
    found = dict(uncertainty.evaluate(evaluation, QUICK))
    for key in ("kappa", "uncertainty", "knn.auroc.kappa", "knn.aurc", "linear.logistic"):
        assert "κ head" in found[f"uncertainty.{key}"].reason
    for key in BESIDE:
        assert 0 < found[f"uncertainty.knn.auroc.{key}"]["value"] < 1


@pytest.mark.parametrize("test, train, said", [(None, 20, "no labels"), (20, None, "no training split")])
def test_without_labels_or_training_images_kappa_is_described(tmp_path, test, train, said):
    sizes = [None if size is None else labelled(size, 0) for size in (test, train)]
    evaluation = evaluation_of(tmp_path, *sizes, kappas(test or 30))
    found = dict(uncertainty.evaluate(evaluation, QUICK))
    assert found["uncertainty.kappa"]["std"] == pytest.approx(kappas(test or 30).std(), rel=1e-6)
    assert said in found["uncertainty.knn"].reason
    assert said in found["uncertainty.linear"].reason
    assert not evaluation.figures


@pytest.mark.parametrize("value, said", [(7.0, "same"), (np.nan, "finite")])
def test_a_kappa_that_says_nothing(tmp_path, value, said):
    evaluation = evaluation_of(tmp_path, labelled(60, 1), labelled(60, 2), np.full(60, value, np.float32))
    found = dict(uncertainty.evaluate(evaluation, QUICK))
    assert said in found["uncertainty.knn.logistic"].reason
    area = found["uncertainty.knn.auroc.kappa"]
    assert isinstance(area, Undefined) if said == "finite" else (area["value"], area["p_value"]) == (0.5, 1)


def test_options_leave_out_what_costs_time(tmp_path):
    evaluation = evaluation_of(tmp_path, labelled(60, 1), labelled(60, 2), kappas(60))
    options = uncertainty.Options(two_view=False, linear=False, shuffles=5, resamples=5)
    found = dict(uncertainty.evaluate(evaluation, options))
    assert not any("two_view" in name or "linear" in name for name in found)
    assert found["uncertainty.knn.auroc.kappa"]["p_value"] >= 1 / 6


def test_the_logistic_line_has_the_greatest_likelihood():
    rng = np.random.default_rng(0)
    kappa = rng.normal(850, 140, 400)
    correct = rng.random(400) < 1 / (1 + np.exp(-(kappa - 800) / 200))
    slope, intercept = uncertainty.logistic_line(kappa.astype(np.float32), correct)

    def loss(slope, intercept):
        return log_loss(correct, 1 / (1 + np.exp(-(slope * kappa + intercept))))

    for change in (0.999, 1.001):
        assert loss(slope * change, intercept) > loss(slope, intercept)
        assert loss(slope, intercept * change) > loss(slope, intercept)
    other = LogisticRegression(C=1e10, tol=1e-9, max_iter=10_000).fit((kappa[:, None] - 850) / 140, correct)
    assert slope * 140 == pytest.approx(other.coef_[0, 0], rel=1e-3)


@pytest.mark.parametrize("correct", ["0011", "1100", "0001"])
def test_no_line_where_kappa_parts_the_answers(correct):
    answers = np.array([c == "1" for c in correct])
    assert isinstance(uncertainty.logistic_line(np.arange(4.0), answers), Undefined)
    assert isinstance(
        uncertainty.logistic_line(np.array([0.0, 1, 1, 2]), np.array([0, 0, 1, 1]) > 0), Undefined
    )


def test_of_a_real_model_and_real_images(shapes_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = vissl_zoo.create_model("dino", backbone="test_resnet", latent_dim=16).eval()
    train, test = (open_images(str(shapes_folder), split=split) for split in ("train", "test"))
    evaluation = Evaluation(model, None, train, test, 32, tmp_path)
    evaluation.memo["linear"] = Undefined("not asked for")
    results = run_protocols(evaluation, ["uncertainty"], {"uncertainty": QUICK})
    areas = results.metrics["uncertainty"]["knn"]["auroc"]
    assert list(areas) == [
        "kappa",
        "negative_entropy",
        "norm",
        "knn_distance",
        "two_view_cosine",
        "max_probability",
    ]
    assert results.reasons == {"uncertainty.linear": "not asked for"}
    assert (np.abs(evaluation.predictions["two_view_cosine"]) <= 1 + 1e-6).all()
