"""Names become a nested document, what is undefined is null with a reason, and what cannot be run is left out."""

import copy
import dataclasses
import inspect
import json
import math
import re

import datasets
import numpy as np
import pytest
import timm
import torch

from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Undefined
from vissl_zoo.evaluation.evaluation_run import Results, evaluate
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.output import flat


def test_names_are_nested_and_numbers_plain():
    results = Results()
    results.add("knn.top1", np.float64(0.5))
    results.add("knn.k", np.int64(3))
    results.add("uncertainty.knn.auroc.kappa", {"value": np.float32(0.25), "p_value": Undefined("too few")})
    assert json.loads(json.dumps(results.metrics)) == {
        "knn": {"top1": 0.5, "k": 3},
        "uncertainty": {"knn": {"auroc": {"kappa": {"value": 0.25, "p_value": None}}}},
    }
    assert results.reasons == {"uncertainty.knn.auroc.kappa.p_value": "too few"}
    assert results.flat()["uncertainty.knn.auroc.kappa.value"] == 0.25


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_what_is_no_number_is_null_and_said(value):
    results = Results()
    results.add("a.b", value)
    assert results.metrics == {"a": {"b": None}}
    assert "a.b" in results.reasons


def test_linear_options_hold_whichever_protocol_trains_first(monkeypatch):
    from types import SimpleNamespace

    from vissl_zoo.evaluation import evaluation_run as run
    from vissl_zoo.evaluation import linear_classifier as linear

    trained = []
    monkeypatch.setattr(linear, "_evaluate", lambda evaluation, options: trained.append(options) or object())
    asked = linear.LinearOptions(epochs=3)
    first = SimpleNamespace(
        NEEDS=set(), evaluate=lambda e, o: [("first", linear.linear_predictions(e) is None)]
    )
    second = SimpleNamespace(
        NEEDS=set(), evaluate=lambda e, o: [("second", linear.linear_predictions(e, o) is None)]
    )
    monkeypatch.setattr(run, "PROTOCOLS", {"first": first, "linear": second})
    evaluation = SimpleNamespace(memo={}, figures=[])
    run.run_protocols(evaluation, ["first", "linear"], {"first": None, "linear": asked})
    assert trained == [asked]


@pytest.fixture
def data(write_split, noise, tmp_path):
    """A labelled data set of 30 and 12 images."""
    write_split(tmp_path / "data" / "train.parquet", noise(30), np.arange(30) % 3)
    write_split(tmp_path / "data" / "test.parquet", noise(12, seed=1), np.arange(12) % 3)
    return tmp_path / "data"


def test_a_module_is_measured_where_it_lies_and_nothing_is_written(model, data, tmp_path):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    metrics = evaluate(model, data, protocols=["knn", "gallery"], image_size=16)
    assert model.training
    model.eval()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert metrics.keys() == {
        "model", "data", "split", "images", "corrupt_images", "knn", "gallery", "reasons", "left_out",
    }  # fmt: skip
    assert (metrics["images"], metrics["split"], metrics["left_out"]) == (12, "test", {})
    assert 0 <= metrics["knn"]["top1"] <= 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_name_is_loaded_and_the_files_say_what_is_returned(data, tmp_path):
    options = {"protocols": ["knn", "gallery"], "image_size": 16, "output_dir": tmp_path / "out"}
    metrics = evaluate("test_resnet", data, random_init=True, **options)
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["left_out"] == {"gallery": "the model has no κ head"}
    table = datasets.Dataset.from_parquet(str(tmp_path / "out" / "predictions.parquet"))
    assert table["row"][:] == list(range(12))
    assert np.mean(np.array(table["knn_pred"]) == np.array(table["label"])) == metrics["knn"]["top1"]


def test_a_classifier_is_measured_by_the_features_before_it(data):
    torch.manual_seed(0)
    classifier = timm.create_model("test_resnet", num_classes=7).eval()
    headless = copy.deepcopy(classifier)
    headless.reset_classifier(0)
    found = [
        evaluate(m, data, protocols=["knn"], image_size=16, exact=True)["knn"] for m in (classifier, headless)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"protocols": ["kNN"]}, "unknown kNN"),
        ({"nearest": {}}, "unknown nearest"),
        ({"linear": {"epoch": 3}}, "epoch"),
        ({"linear": {"epochs": 0}}, "--linear.epochs must be at least 1, not 0"),
        ({"linear": {"batch_size": 0}}, "--linear.batch-size"),
        *(
            ({"linear": {"learning_rates": r}}, "--linear.learning-rates")
            for r in ((), (1, 0), (1, math.nan), (math.inf,))
        ),
        ({"transfer": {"linear": PROTOCOLS["linear"].Options(epochs=0)}}, "--transfer.linear.epochs"),
        ({"gallery": {"count": 0}}, "--gallery.count"),
        ({"gallery": {"share": 0.6}}, "--gallery.share"),
        ({"augmentation": {"images": 0}}, "--augmentation.images"),
        ({"augmentation": {"draws": 0}}, "--augmentation.draws"),
        ({"corruption": {"ood_images": 0}}, "--corruption.ood-images"),
        ({"collapse": {"images": 1}}, "--collapse.images must be at least 2, not 1"),
        ({"cosine": {"pairs": 0}}, "--cosine.pairs"),
        ({"semi_supervised": {"epochs": -1}}, "--semi-supervised.epochs"),
        ({"semi_supervised": {"batch_size": 2}}, "--semi-supervised.batch-size"),
        ({"semi_supervised": {"percents": (1, 101)}}, "--semi-supervised.percents"),
        ({"test_time": {"crops": 0}}, "--test-time.crops"),
        ({"test_time": {"scale": (0.0, 1.0)}}, "--test-time.scale"),
        ({"test_time": {"scale": (0.5, 0.2)}}, "--test-time.scale"),
        ({"uncertainty": {"shuffles": 0}}, "--uncertainty.shuffles"),
    ],
)
def test_what_is_given_wrongly_is_one_line(model, data, given, said):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        evaluate(model, data, **{"protocols": given, "image_size": 16, **given})
    assert "\n" not in str(caught.value)


def test_options_of_a_protocol_are_a_dict_or_its_own_class(model, data):
    options = PROTOCOLS["gallery"].Options(count=1)
    for given in (options, {"count": 1}):
        assert "gallery" in evaluate(model, data, protocols=["gallery"], image_size=16, gallery=given)


@pytest.fixture(scope="module")
def everything(model, shapes_folder, tmp_path_factory):
    """Every protocol on one small labelled data set that knows its ambiguity: what is returned, and the folder."""
    folder = tmp_path_factory.mktemp("everything")
    linear = PROTOCOLS["linear"].Options(epochs=2)
    quick = {
        "linear": linear, "semi_supervised": {"epochs": 1, "percents": (10,)},
        "augmentation": {"images": 5, "draws": 2}, "corruption": {"images": 4}, "cosine": {"pairs": 6},
        "test_time": {"images": 5, "crops": 2, "repeats": 1},
        "transfer": {"data": (str(shapes_folder),), "linear": linear},
        "uncertainty": {"shuffles": 20, "resamples": 20},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISSL_ZOO_CACHE", str(folder / "cache"))
        return evaluate(model, shapes_folder, image_size=32, output_dir=folder, **quick), folder


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_contract_of_a_protocol(name, everything):
    """A title, needs that are known, options with help beside each field, values and the paper's under its own name."""
    metrics, folder = everything
    protocol = PROTOCOLS[name]
    assert protocol.TITLE
    assert {"labels", "kappa", "train", "ambiguity"} >= protocol.NEEDS
    source = inspect.getsource(protocol.Options)
    for field in dataclasses.fields(protocol.Options):
        assert f"{field.name}: " in source
        assert source.count('"""') >= 2 * (1 + len(dataclasses.fields(protocol.Options)))
    assert all(key.startswith(f"{name}.") for key in protocol.PAPER)
    assert name not in metrics["left_out"]
    assert flat({name: metrics[name]})
    for value in flat({name: metrics[name]}).values():
        assert value is None or isinstance(value, (int, float, str))
    assert protocol.TITLE in (folder / "index.html").read_text()
