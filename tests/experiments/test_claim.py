"""The figures of docs/the_claim.md: from a run's folder to a row, and the one line where there is no run."""

import json

import numpy as np
import pandas as pd
import pytest

import claim
from plans import CLAIM_ARMS, PLANS


def test_accuracy_is_by_fifths_of_kappa_least_first():
    kappa = np.arange(10.0)[::-1]
    right = kappa >= 6  # the four images with the highest κ
    images = pd.DataFrame({"kappa": kappa, "label": 1, "knn_pred": np.where(right, 1, 0)})
    assert claim.fifths(images) == [0, 0, 0, 1, 1]


def test_every_arm_has_every_seed_and_a_choice_that_was_tried():
    assert len(PLANS["claim"]) == 3 * len(CLAIM_ARMS)
    assert len(PLANS["claim_choice"]) == 3 * len(CLAIM_ARMS)
    assert all(best in rates for _, _, rates, best in CLAIM_ARMS.values())


@pytest.mark.parametrize(
    ("arguments", "said"), [([], "comes first"), (["{folder}"], "holds no finished run")]
)
def test_without_runs_there_is_one_line(arguments, said, tmp_path, capsys):
    assert claim.main([argument.format(folder=tmp_path) for argument in arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_is_drawn_is_what_the_file_holds(root):
    figure = claim.draw(json.loads((root / "docs" / "the_claim.json").read_text()))
    assert [len(axes.lines) for axes in figure.axes] == [4, 0, len(CLAIM_ARMS) - 1]
