"""The report: on labelled, half labelled and unlabelled images, with and without a split to measure on."""

import copy
import json

import numpy as np
import pytest

from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.report import choose_images, open_measured, write_report

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
ALWAYS = {"images", "kappa_mean", "kappa_std", "uncertainty_mean", "seconds"}
WITH_LABELS = {
    "knn_top1",
    "knn_top1_untrained",
    "knn_k",
    "knn_bank_images",
    "auroc_kappa_knn",
    "auroc_kappa_knn_untrained",
}
NOT_AN_IMAGE = b"not an image"


@pytest.fixture
def report_on(model, tmp_path):
    """report_on(path, **changes) -> (Report, the metrics that were written)."""

    def report_on(path, train="train", **changes):
        table = open_images(path, split=train)
        given = {
            "image_size": 16,
            "split": None,
            "columns": (None, None),
            "limit": 100,
            "history": HISTORY,
            "diagnoses": [],
            "seconds": lambda: 12.5,
            "seed": 0,
        }
        folder = tmp_path / "report"
        report = write_report(folder, model, copy.deepcopy(model), table, **{**given, **changes})
        return report, json.loads((folder / "metrics.json").read_text())

    return report_on


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_labelled_with_a_test_split(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(40), np.arange(40) % 3)
    write_split(data / "test.parquet", noise(12, seed=1), np.arange(12) % 3)
    report, metrics = report_on(data)
    assert metrics.keys() == ALWAYS | WITH_LABELS
    assert metrics["images"] == 12
    assert metrics["knn_top1"] == metrics["knn_top1_untrained"]  # it is the same model
    assert metrics["seconds"] == 12.5
    assert "the split 'test'" in report.notes[0]
    assert {p.name for p in report.folder.iterdir()} == {
        "metrics.json", "index.html", "gallery.png", "curves.png", "kappa.png",
    }  # fmt: skip
    for row in report.rows:
        assert row[0] in report.summary()


def test_what_kappa_knows_is_what_the_predictions_say(report_on, write_split, noise, data, model):
    """Top-1 and AUROC computed again from the model itself."""
    from sklearn.metrics import roc_auc_score

    from vissl_zoo.evaluation.knn import knn
    from vissl_zoo.inference import embed_all

    labels = np.random.default_rng(0).integers(0, 3, 60)
    write_split(data / "train.parquet", noise(60), labels)
    write_split(data / "test.parquet", noise(20, seed=1), labels[:20])
    _, metrics = report_on(data)
    bank, scored = (embed_all(model, open_images(data, split=s), 16) for s in ("train", "test"))
    result = knn(bank.embedding, labels, scored.embedding, labels[:20])
    assert metrics["knn_top1"] == pytest.approx(result.top1)
    assert 0 < result.top1 < 1
    assert metrics["auroc_kappa_knn"] == pytest.approx(roc_auc_score(result.correct, scored.kappa))
    assert metrics["kappa_mean"] == pytest.approx(scored.kappa.mean())


def test_a_tenth_is_held_out_where_there_is_no_other_split(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(50), np.arange(50) % 3)
    report, metrics = report_on(data)
    assert metrics["images"] == 5
    assert metrics.keys() >= WITH_LABELS
    assert "a tenth of the split 'train'" in report.notes[0]


@pytest.mark.parametrize("train, split", [("train", "train"), ("test", None), ("test", "test")])
def test_what_is_scored_is_never_in_the_bank(write_split, noise, data, train, split):
    """Asked to measure on the training split itself, each image would be its own nearest neighbour."""
    write_split(data / f"{train}.parquet", noise(50), np.arange(50) % 3)
    table = open_images(data, split=train)
    images = choose_images(table, split, (None, None), 100, 0)
    assert (len(images.scored_rows), len(images.bank_rows)) == (5, 45)
    assert not set(images.scored_rows) & set(images.bank_rows)


def test_a_validation_split_serves_and_a_given_one_wins(write_split, noise, data):
    for name, count in {"train": 20, "validation": 6, "extra-0": 4}.items():
        write_split(data / f"{name}.parquet", noise(count), np.arange(count) % 3)
    table = open_images(data)
    assert len(choose_images(table, None, (None, None), 100, 0).scored_rows) == 6
    assert len(choose_images(table, "val", (None, None), 100, 0).scored_rows) == 6
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
    images = choose_images(table, None, (None, None), 24, 0)
    assert (len(images.bank_rows), len(images.scored_rows)) == (24, 6)
    for rows in (images.bank_rows, images.scored_rows):
        assert (np.diff(rows) > 0).all()
    again, other = (choose_images(table, None, (None, None), 24, seed).bank_rows for seed in (0, 1))
    assert np.array_equal(again, images.bank_rows)
    assert not np.array_equal(other, images.bank_rows)


def test_without_labels(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(30))
    report, metrics = report_on(data)
    assert metrics.keys() == ALWAYS
    assert metrics["images"] == 25  # a quarter of the limit
    assert "Without labels" in report.summary()


def test_an_unlabelled_split_of_its_own_is_measured_on(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(30))
    write_split(data / "test.parquet", noise(7, seed=1))
    assert report_on(data)[1]["images"] == 7


@pytest.mark.parametrize("train, test", [([0, 1, -1, 2] * 5, [0, 1, 2]), ([0, 1, 2, 0] * 5, [0, -1, 2])])
def test_partly_labelled(report_on, write_split, noise, data, train, test):
    write_split(data / "train.parquet", noise(20), train)
    write_split(data / "test.parquet", noise(3, seed=1), test)
    report, metrics = report_on(data)
    assert metrics.keys() == ALWAYS | WITH_LABELS
    unlabelled = sum(label < 0 for label in test)
    assert ("without a label are left out" in report.summary()) == (unlabelled > 0)
    assert metrics["knn_bank_images"] == sum(label >= 0 for label in train)
    assert metrics["knn_top1"] * (3 - unlabelled) == pytest.approx(
        round(metrics["knn_top1"] * (3 - unlabelled))
    )


def test_a_test_split_without_labels(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(20), np.arange(20) % 3)
    write_split(data / "test.parquet", noise(4, seed=1), [-1] * 4)
    report, metrics = report_on(data)
    assert metrics.keys() == ALWAYS
    assert "Without labels" in report.summary()


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_few_images(report_on, write_split, noise, data, count):
    write_split(data / "train.parquet", noise(count), np.arange(count) % 3)
    report, metrics = report_on(data)
    assert metrics["images"] == 1
    assert ("knn_top1" in metrics) == (count == 6)
    assert ("fewer than 5" in report.summary()) == (count < 6)
    assert metrics.get("auroc_kappa_knn") is None  # of one image it is undefined


def test_one_class_leaves_the_auroc_undefined(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(30), [0] * 30)
    report, metrics = report_on(data)
    assert (metrics["knn_top1"], metrics["auroc_kappa_knn"]) == (1.0, None)
    assert "undefined" in report.summary()


def test_corrupt_images_shift_nothing_when_decoded_on_the_fly(report_on, write_split, data):
    """Class 0 is dark and class 1 bright, so any image under another's label would be classified wrongly."""
    dark, bright = (np.full((10, 16, 16, 3), level, dtype=np.uint8) for level in (20, 230))
    train = [*dark, *bright]
    train[4] = NOT_AN_IMAGE
    write_split(data / "train.parquet", train, [0] * 10 + [1] * 10)
    test = [*dark[:4], *bright[:4]]
    test[3] = NOT_AN_IMAGE  # the next readable image is a bright one
    write_split(data / "test.parquet", test, [0] * 4 + [1] * 4)
    _, metrics = report_on(data)
    assert metrics["images"] == 7
    assert metrics["knn_bank_images"] == 19
    assert metrics["knn_top1"] == 1.0


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-3, np.nan])
def test_a_collapsed_kappa_can_be_drawn(tmp_path, spread):
    from vissl_zoo.evaluation import figures

    kappa = np.float32(930.0) * (1 + np.float32(spread) * np.arange(50, dtype=np.float32))
    figures.kappa_histogram(kappa, np.arange(50) % 2 == 0, tmp_path / "kappa.png")
    assert (tmp_path / "kappa.png").stat().st_size > 1000


def test_corrupt_images_are_left_out(report_on, write_split, noise, data):
    bad = [NOT_AN_IMAGE]
    write_split(data / "train.parquet", [*bad * 3, *noise(30)], np.arange(33) % 3)
    write_split(data / "test.parquet", [*noise(6, seed=1), *bad * 2], np.arange(8) % 3)
    report, metrics = report_on(data)
    assert metrics["images"] == 6
    assert metrics.keys() >= WITH_LABELS
    assert (report.folder / "gallery.png").stat().st_size > 1000


def test_known_ambiguity(report_on, write_split, noise, data):
    write_split(data / "train.parquet", noise(20), np.arange(20) % 3, ambiguity=[0.5] * 20)
    images = noise(16, seed=1) // np.arange(1, 17, dtype=np.uint8)[:, None, None, None]  # ever flatter
    write_split(data / "test.parquet", images, np.arange(16) % 3, ambiguity=list(np.linspace(0, 1, 16)))
    report, metrics = report_on(data)
    assert metrics["spearman_pixel_deviation_ambiguity"] < -0.9
    assert metrics["spearman_edge_density_ambiguity"] < -0.3
    learnt, start = (metrics[f"spearman_{n}_ambiguity"] for n in ("uncertainty", "untrained_kappa"))
    assert learnt == start
    assert "ambiguity.png" in (report.folder / "index.html").read_text()
    assert (report.folder / "ambiguity.png").exists()


@pytest.mark.parametrize("values", [["low"] * 9 + ["high"], [float("nan")] * 10, [0.5] * 10])
def test_a_column_called_ambiguity_that_is_none(report_on, write_split, noise, data, values):
    write_split(data / "train.parquet", noise(20), np.arange(20) % 3, ambiguity=values * 2)
    write_split(data / "test.parquet", noise(10, seed=1), np.arange(10) % 3, ambiguity=values)
    _, metrics = report_on(data)
    assert metrics.get("spearman_uncertainty_ambiguity") is None


def test_gallery_is_of_the_highest_and_the_lowest_kappa(report_on, write_split, noise, data, monkeypatch):
    from vissl_zoo.evaluation import figures

    seen = {}
    monkeypatch.setattr(
        figures, "gallery", lambda certain, uncertain, path: seen.update(c=certain, u=uncertain)
    )
    write_split(data / "train.parquet", noise(60))
    report_on(data, limit=400)
    kappas = {k: [float(caption.split()[1]) for _, caption in block] for k, block in seen.items()}
    assert [len(block) for block in seen.values()] == [16, 16]
    assert kappas["c"] == sorted(kappas["c"], reverse=True)
    assert kappas["u"] == sorted(kappas["u"])
    pixels = {k: {np.asarray(image).tobytes() for image, _ in block} for k, block in seen.items()}
    assert not pixels["c"] & pixels["u"]
