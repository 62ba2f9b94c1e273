"""The report: on labelled, half labelled and unlabelled images, with and without a split to measure on."""

import copy
import json

import numpy as np
import pytest

from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation import evaluate, open_measured, report_training
from vissl_zoo.evaluation.training_report import choose_images

HISTORY = [
    {
        "step": s,
        "loss": -s,
        "alignment": s,
        "kappa_mean": 3.0,
        "kappa_std": 1.0,
        "embedding_std": 0.9,
        "effective_rank": s,
    }
    for s in (1, 2, 3)
]
NOT_AN_IMAGE = b"not an image"
FILES = {
    "metrics.json", "predictions.parquet", "index.html", "gallery.png", "curves.png",
}  # fmt: skip


@pytest.fixture
def report_on(model, tmp_path):
    """report_on(path, **changes) -> (the metrics that were written, the summary)."""

    def report_on(path, train="train", **changes):
        table = open_images(path, split=train)
        given = {
            "image_size": 16,
            "split": None,
            "columns": (None, None),
            "limit": 100,
            "history": HISTORY,
            "diagnoses": ["It is watched."],
            "seconds": lambda: 12.5,
            "seed": 0,
        }
        folder = tmp_path / "run" / "report"
        metrics, summary = report_training(folder, model, copy.deepcopy(model), table, **{**given, **changes})
        assert metrics == json.loads((folder / "metrics.json").read_text())
        assert {p.name for p in folder.iterdir()} >= FILES
        return metrics, summary

    return report_on


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_labelled_with_a_test_split(report_on, write_split, noise, data, tmp_path):
    """One schema: what `evaluate` gives of the same images, and the untrained model beside it."""
    write_split(data / "train.parquet", noise(60), np.arange(60) % 3)
    write_split(data / "test.parquet", noise(20, seed=1), np.arange(20) % 3)
    metrics, summary = report_on(data)
    assert (metrics["images"], metrics["data"], metrics["split"]) == (20, str(data), "test")
    assert metrics["model"] == "run"
    assert metrics["seconds"] == 12.5
    assert metrics["untrained"]["knn"]["top1"] == metrics["knn"]["top1"]  # it is the same model
    assert metrics["uncertainty"]["knn"]["auroc"].keys() == {
        "kappa", "norm", "knn_distance", "two_view_cosine", "max_probability",
    }  # fmt: skip
    area = metrics["uncertainty"]["knn"]["auroc"]["kappa"]
    assert area.keys() == {"value", "p_value", "ci_low", "ci_high"}
    assert area == metrics["untrained"]["uncertainty"]["knn"]["auroc"]["kappa"]
    assert "ambiguity" in metrics["left_out"]
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    for text in ("It is watched.", "the split &#39;test&#39;", "curves.png", "gallery.png", "kNN top-1"):
        assert text in page
    assert "It is watched." in summary
    top1 = f"{100 * metrics['knn']['top1']:.1f}"
    (line,) = (line for line in summary.splitlines() if line.startswith("kNN top-1"))
    assert line.split()[-2:] == [top1, top1]


def test_its_figures_are_those_of_evaluate(report_on, write_split, noise, data, model):
    write_split(data / "train.parquet", noise(60), np.arange(60) % 3)
    write_split(data / "test.parquet", noise(20, seed=1), np.arange(20) % 3)
    reported, _ = report_on(data)
    protocols = ["knn", "uncertainty", "gallery"]
    measured = evaluate(model, data, protocols=protocols, image_size=16, uncertainty={"linear": False})
    for name in ("knn", "uncertainty", "gallery"):
        assert reported[name] == measured[name]


def test_a_tenth_is_held_out_where_there_is_no_other_split(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(50), np.arange(50) % 3)
    metrics, summary = report_on(data)
    assert metrics["images"] == 5
    assert metrics["knn"]["bank_images"] == 45
    assert "a tenth of the split 'train'" in summary


@pytest.mark.parametrize("train, split", [("train", "train"), ("test", None), ("test", "test")])
def test_what_is_measured_is_never_in_the_bank(write_split, noise, data, train, split):
    """Asked to measure on the training split itself, each image would be its own nearest neighbour."""
    write_split(data / f"{train}.parquet", noise(50), np.arange(50) % 3)
    bank, measured, _ = choose_images(open_images(data, split=train), split, (None, None), 100, 0)
    assert (len(measured), len(bank)) == (5, 45)
    assert not set(measured.rows) & set(bank.rows)


def test_a_validation_split_serves_and_a_given_one_wins(write_split, noise, data):
    for name, count in {"train": 20, "validation": 6, "extra-0": 4}.items():
        write_split(data / f"{name}.parquet", noise(count), np.arange(count) % 3)
    table = open_images(data)
    assert len(choose_images(table, None, (None, None), 100, 0)[1]) == 6
    assert len(choose_images(table, "val", (None, None), 100, 0)[1]) == 6
    with pytest.raises(UserError, match='no split "nope"'):
        choose_images(table, "nope", (None, None), 100, 0)


def test_no_image_that_is_trained_on_is_measured_on(shapes_folder):
    whole = open_images(str(shapes_folder), split="test")
    part = open_images(str(shapes_folder), split="test[:50%]")
    assert open_measured(whole, None) is None  # `test` is trained on, and `train` is none to measure on
    assert open_measured(part, None) is None
    assert open_measured(part, "test[50%:]").split == "test[50%:]"
    assert open_measured(part, "test[:50%]") is None
    assert open_measured(part, "train").split == "train"
    with pytest.raises(UserError, match=r"10 images of --data.eval-split test\[25%:\] are also trained on"):
        open_measured(part, "test[25%:]")


def test_the_limit_draws_a_sample_in_order(write_split, noise, data):
    write_split(data / "train.parquet", noise(60), np.arange(60) % 3)
    write_split(data / "test.parquet", noise(40), np.arange(40) % 3)
    table = open_images(data)
    bank, measured, _ = choose_images(table, None, (None, None), 24, 0)
    assert (len(bank), len(measured)) == (24, 6)
    for part in (bank, measured):
        assert (np.diff(part.rows) > 0).all()
    again, other = (choose_images(table, None, (None, None), 24, seed)[0].rows for seed in (0, 1))
    assert np.array_equal(again, bank.rows)
    assert not np.array_equal(other, bank.rows)


def test_without_labels(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(30))
    metrics, summary = report_on(data)
    assert metrics["images"] == 25  # a quarter of the limit
    assert metrics["uncertainty"]["kappa"]["mean"] == pytest.approx(metrics["untrained"]["kappa"]["mean"])
    assert "knn" not in metrics
    assert "no kNN accuracy" in summary


def test_an_unlabelled_split_of_its_own_is_measured_on(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(30))
    write_split(data / "test.parquet", noise(7, seed=1))
    assert report_on(data)[0]["images"] == 7


@pytest.mark.parametrize("train, test", [([0, 1, -1, 2] * 5, [0, 1, 2]), ([0, 1, 2, 0] * 5, [0, -1, 2])])
def test_partly_labelled(report_on, write_split, noise, data, train, test):
    write_split(data / "train.parquet", noise(20), train)
    write_split(data / "test.parquet", noise(3, seed=1), test)
    metrics, summary = report_on(data)
    unlabelled = sum(label < 0 for label in test)
    assert ("without a label are left out" in summary) == (unlabelled > 0)
    assert metrics["knn"]["bank_images"] == sum(label >= 0 for label in train)
    right = metrics["knn"]["top1"] * (3 - unlabelled)
    assert right == pytest.approx(round(right))


@pytest.mark.parametrize("count", [1, 4, 6])
def test_few_images(report_on, write_split, noise, data, count):
    write_split(data / "train.parquet", noise(count), np.arange(count) % 3)
    metrics, summary = report_on(data)
    assert metrics["images"] == 1
    assert (metrics.get("knn", {}).get("top1") is not None) == (count == 6)
    assert ("no kNN accuracy" in summary) == (count < 6)
    if count == 6:
        assert metrics["uncertainty"]["knn"]["auroc"]["kappa"] is None  # of one image it is undefined
        assert "undefined" in summary


def test_corrupt_images_shift_nothing_and_are_counted(report_on, write_split, data):
    """Class 0 is dark and class 1 bright, so any image under another's label would be classified wrongly."""
    dark, bright = (np.full((10, 16, 16, 3), level, dtype=np.uint8) for level in (20, 230))
    train = [*dark, *bright]
    train[4] = NOT_AN_IMAGE
    write_split(data / "train.parquet", train, [0] * 10 + [1] * 10)
    test = [*dark[:4], *bright[:4]]
    test[3] = NOT_AN_IMAGE  # the next readable image is a bright one
    write_split(data / "test.parquet", test, [0] * 4 + [1] * 4)
    metrics, _ = report_on(data)
    assert (metrics["images"], metrics["corrupt_images"]) == (7, 1)
    assert metrics["knn"]["bank_images"] == 19
    assert metrics["knn"]["top1"] == 1.0


def test_known_ambiguity(report_on, write_split, noise, data):
    for split, count in {"train": 20, "test": 16}.items():
        ambiguity = list(np.linspace(0, 1, count))
        write_split(data / f"{split}.parquet", noise(count), np.arange(count) % 3, ambiguity=ambiguity)
    metrics, summary = report_on(data)
    found = metrics["ambiguity"]["spearman"]
    assert found.keys() == {"kappa", "untrained", "edge_density", "pixel_deviation"}
    assert found["kappa"] == pytest.approx(found["untrained"])
    for text in ("Spearman of uncertainty with ambiguity", "edge density", "pixel deviation"):
        assert text in summary


def test_an_earlier_report_is_cleared_away(report_on, write_split, noise, data, tmp_path):
    write_split(data / "train.parquet", noise(60), np.arange(60) % 3)
    report_on(data)
    assert (tmp_path / "run" / "report" / "knn.png").exists()
    write_split(data / "train.parquet", noise(60))
    report_on(data)
    assert not (tmp_path / "run" / "report" / "knn.png").exists()
