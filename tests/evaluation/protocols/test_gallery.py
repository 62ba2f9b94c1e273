"""The images at both ends of the order, with ties, one image and more asked for than there are."""

import math

import numpy as np
import pytest
import torch

import vissl_zoo
from vissl_zoo.evaluation.protocols.gallery import Options, evaluate, extremes, summary


@pytest.mark.parametrize(
    "certainty, count, most, least",
    [
        ([3, 1, 2, 5, 4], 2, [3, 4], [1, 2]),
        ([3, 1, 2, 5, 4], 10, [3, 4], [1, 2]),  # half of them at most: none is shown as both
        ([7], 3, [0], [0]),
        ([2, 9], 3, [1], [0]),
        ([1, 1, 1, 1], 1, [0], [3]),
        ([-0.5, -0.25, 0.0, 1.0], 1, [3], [0]),
    ],
)
def test_extremes_of_hand_made_orders(certainty, count, most, least):
    found = extremes(np.array(certainty, dtype=np.float32), count)
    assert [list(part) for part in found] == [most, least]


def test_summary_by_hand():
    assert summary(np.array([1, 2, 3, 6], np.float32)) == {
        "mean": 3.0,
        "std": pytest.approx(math.sqrt(3.5)),
        "lowest": 1.0,
        "median": 2.5,
        "highest": 6.0,
    }


def test_kappa_needs_no_labels(shapes_evaluation, tmp_path):
    evaluation = shapes_evaluation(train=None)
    evaluation.test.labels = None
    found = dict(evaluate(evaluation, Options(count=3)))
    assert found == {"gallery.kappa": summary(evaluation.test_features.kappa)}
    assert [name for name, _ in evaluation.figures] == ["gallery.png"]
    assert (tmp_path / "gallery.png").stat().st_size > 1000


@pytest.mark.parametrize("share, drawn", [(0.05, False), (0.2, True), (0.5, True)])
def test_the_share_is_drawn_from_only_where_it_holds_more_than_is_shown(shapes_evaluation, share, drawn):
    evaluation = shapes_evaluation()
    dict(evaluate(evaluation, Options(count=2, share=share)))
    assert ("gallery_share.png" in dict(evaluation.figures)) == drawn


def test_dino_is_shown_by_its_entropy_too(shapes_evaluation):
    torch.manual_seed(0)
    model = vissl_zoo.create_model("dino", backbone="test_resnet", prototypes=24).eval()
    evaluation = shapes_evaluation(model=model)
    found = dict(evaluate(evaluation, Options(count=2)))
    assert [name for name, _ in evaluation.figures] == ["gallery.png", "gallery_entropy.png"]
    crops = np.stack([evaluation.crop.crop(evaluation.test.read(row)) for row in range(40)])
    with torch.no_grad():
        y = model(evaluation.crop.normalise(torch.from_numpy(crops).permute(0, 3, 1, 2)))
        probabilities = model.prototype_head.teacher_probabilities(model.prototype_head(y))
    entropy = torch.distributions.Categorical(probabilities).entropy()
    assert found["gallery.entropy"]["mean"] == pytest.approx(entropy.mean().item(), rel=1e-3)
    assert found["gallery.entropy"]["highest"] == pytest.approx(entropy.max().item(), rel=1e-3)
