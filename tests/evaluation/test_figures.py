"""What the figures draw is what was measured, also of few images, of one value, and of one kind of answer."""

import numpy as np
import pytest

from vissl_zoo.evaluation import figures

CORRECT = np.array([True, False, True, True, False, True])


@pytest.mark.parametrize("kappa", [np.arange(6.0), np.full(6, 7.0), np.full(6, 1e-30)], ids=str)
@pytest.mark.parametrize("correct", [CORRECT, CORRECT | True, CORRECT & False], ids=str)
def test_histogram_counts_every_image(kappa, correct, tmp_path):
    figure = figures.histogram(kappa, correct, (0.5, -1.0))
    figure.savefig(tmp_path / "figure.png")
    bars, right = figure.axes
    wrong_on_top = [container for container in bars.containers if len(container)]
    assert sum(p.get_height() for container in wrong_on_top for p in container) == 6
    accuracy, curve = (line.get_ydata() for line in right.lines)
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert np.allclose(curve, 1 / (1 + np.exp(-(0.5 * right.lines[1].get_xdata() - 1))))


def test_accuracy_per_bin():
    kappa = np.repeat([0.0, 10.0, 20.0], [20, 5, 40])
    correct = np.arange(65) % 4 > 0
    figure = figures.histogram(kappa, correct, None)
    (line,) = figure.axes[1].lines
    assert line.get_ydata() == pytest.approx(
        [correct[:20].mean(), correct[25:].mean()]
    )  # 5 images are too few


def test_roc_and_risk_have_a_curve_for_each_score(tmp_path):
    scores = {"kappa": np.arange(6.0), "norm": np.array([1, 1, 2, 2, 3, 3.0])}
    roc = figures.roc(scores, CORRECT, {"kappa": 0.25, "norm": 0.5})
    assert [t.get_text() for t in roc.axes[0].get_legend().get_texts()] == [
        "κ  0.250",
        "embedding norm  0.500",
    ]
    risk = figures.risk_against_coverage(scores, CORRECT)
    assert len(risk.axes[0].lines) == 4
    for line in risk.axes[0].lines[:3]:
        assert line.get_ydata()[-1] == pytest.approx(2 / 6)  # all answered: the error rate
    for figure in (roc, risk):
        figure.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("kappa", [np.arange(50.0), np.full(50, 7.0)], ids=["varied", "collapsed"])
def test_without_answers_the_histogram_is_of_kappa_alone(kappa):
    (axes,) = figures.histogram(kappa).axes
    assert sum(bar.get_height() for bar in axes.patches) == 50
