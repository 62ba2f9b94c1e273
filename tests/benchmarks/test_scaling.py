"""Fits of known curves, and their pictures."""

import json

import numpy as np
import pytest
from PIL import Image

X = [1_000, 10_000, 100_000]


@pytest.fixture
def scaling(load):
    return load("scaling")


@pytest.mark.parametrize(
    "y, slope, said",
    [
        ([3.0 * x for x in X], 1, "linear (slope +1.00"),
        ([7.0, 7.1, 6.9], 0, "hardly depends on it"),
        ([7.0, 7.0, 7.0], 0, "hardly depends on it"),
        ([0.5 + 2e-5 * x for x in X], None, "a constant and a linear part"),
        ([x**0.5 for x in X], 0.5, "not linear (slope +0.50, R² 1.000"),
        ([x**2.0 for x in X], 2, "not linear (slope +2.00"),
    ],
)
def test_fits_say_what_is_linear(scaling, y, slope, said):
    fit = scaling.fit(X, y)
    assert fit.statement.startswith(said)
    if slope is not None:
        assert fit.slope == pytest.approx(slope, abs=0.02)


def test_a_fit_recovers_constant_and_slope_and_warns_of_two_points(scaling):
    fit = scaling.fit(X, [0.5 + 2e-5 * x for x in X])
    assert (fit.a, fit.b, fit.linear_r2) == pytest.approx((0.5, 2e-5, 1))
    said = "2.00 times from 1,000 to 10,000 (two points fit any line)"
    assert scaling.fit(X[:2], [1.0, 2.0]).statement == said


def test_curves_become_lines_and_pictures(scaling, tmp_path):
    curves = {
        "images": [scaling.Point(x, 1000.0, 0.5 + 1e-5 * x, 2 + 1e-4 * x) for x in X],
        "batch": [scaling.Point(x, 1000.0, None, 3.0) for x in (32, 64)],
    }
    found = [line for name, points in curves.items() for line in scaling.lines(name, points, 3)]
    names = [
        "images/s against images",
        "GiB against images",
        "s to open against images",
        "images/s against batch",
        "ms a step against batch",
    ]
    assert [line.name for line in found] == [f"scaling: {name}" for name in names]
    assert found[1].details["x"] == X
    assert "linear part" in found[1].details["statement"]
    assert found[-1].details["y"] == [32, 64]  # of 1,000 images/s
    json.dumps([line.described() for line in found])
    paths = scaling.draw(curves, tmp_path / "new")
    assert [path.name for path in paths] == ["scaling_images.png", "scaling_batch.png"]
    for path in paths:
        assert np.asarray(Image.open(path).convert("L")).std() > 5  # something is drawn


def test_a_launcher_that_starts_too_few_processes_is_found_out(scaling):
    lines = [{"processes": 1, "images_per_second": 5.0}]
    assert scaling.rate_of(lines, 1) == 5
    with pytest.raises(RuntimeError, match="2 processes were asked for"):
        scaling.rate_of(lines, 2)
