"""Names become a nested document, what is undefined is null with a reason, and what cannot be run is left out."""

import json

import numpy as np
import pytest

from vissl_zoo.evaluation.context import Undefined
from vissl_zoo.evaluation.run import Results


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

    from vissl_zoo.evaluation import linear, run

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
