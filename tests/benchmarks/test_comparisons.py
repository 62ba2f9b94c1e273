"""The scripts do on both sides what they say: small, in this process, and with peers where they are installed."""

import importlib.util
import sys

import numpy as np
import pytest


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@pytest.mark.parametrize("script", ["knn", "linear"])
def test_a_quick_run(load, script, capsys):
    module, measure = load(script), load("measure")
    options = {"knn": "KnnOptions", "linear": "LinearBenchmarkOptions"}[script]
    report = measure.Report(None, quick=True)
    module.measure(getattr(module, options)(quick=True), report)
    assert all(line.ours > 0 and line.peer > 0 and line.ratio > 0 for line in report.lines)
    details = report.lines[0].details
    chance = 1.5 / module.CLASSES
    assert details["top1_scikit_learn"] > chance
    if script == "knn":
        assert details["same_as_scikit_learn"] > 0.99
        assert details["last_of_all_same_as_one"] > 0.99
        assert {str(line.target) for line in report.lines} == {"≤ 1.1", "≥ 2"}
    else:
        assert details["top1_eight"] >= details["top1_one"] > chance


def test_our_training_loop_is_fed_by_turns(load, contest, small, tmp_path):
    flags = ("demo", *small, "--output-dir", str(tmp_path))
    info, turns = contest(load("loops").ours, flags)
    assert info == {"precision": "no", "images": 120}
    assert [turn.images for turn in turns] == [16, 16]
    losses = load("loops").last_lines(tmp_path, 5)
    assert [line["step"] for line in losses] == [1, 2]  # train.py's own log: these were real steps


def test_the_ready_made_step_has_no_loader(load, contest, small, tmp_path):
    info, turns = contest(load("loops").ready_made, ("demo", *small, "--output-dir", str(tmp_path)))
    assert info == {"precision": "no"}
    assert [turn.images for turn in turns] == [16, 16]


@needs("lightly")
def test_lightly_trains_on_the_same_pixels(load, contest, shapes_folder):
    loop = load("lightly_loop")
    _, turns = contest(loop.lightly_simsiam, str(shapes_folder), 32, 8, 1, True)
    assert [turn.images for turn in turns] == [8, 8]
    from vissl_zoo.data import open_images

    pixels = loop.decode(str(shapes_folder), 32)
    assert pixels.shape == (120, 32, 32, 3)
    assert (pixels[5] == np.asarray(open_images(str(shapes_folder)).read(5))).all()


def turns_of(contestants, precisions, lightly=True):
    """Turns at made-up rates: in bfloat16 ours does 24 and 26 images in a second, lightly 10."""
    rates = {"ours, bfloat16": [24, 26], "ready-made, bfloat16": [25, 26]}
    rates |= {"ours, float32": [15, 15], "ready-made, float32": [15, 16], "lightly": [10, 10]}
    kept = [name for name in rates if name.split(", ")[-1] in (*precisions, *["lightly"] * lightly)]
    return {name: [contestants.Turn(images, 1.0, 0.5) for images in rates[name]] for name in kept}


def test_lines_of_training(load):
    training = load("training")
    turns = turns_of(load("contestants"), ("bfloat16", "float32"))
    fast, close, plain, plain_close = training.lines("here", turns, None, training.FASTER)
    assert (fast.ratio, str(fast.target), fast.reached) == (2.5, "≥ 2.2", True)
    assert (plain.ratio, str(plain.target), plain.reached) == (1.5, "≥ 1.25", True)
    assert close.ratio == pytest.approx((24 / 25 + 1) / 2)
    assert plain_close.ratio == pytest.approx((1 + 15 / 16) / 2)
    assert {str(line.target) for line in (close, plain_close)} == {"≥ 0.92"}
    assert fast.details == {"ratio_of_processor_time": 2.5}


def test_lines_of_training_without_bfloat16_and_without_lightly(load):
    training = load("training")
    turns = turns_of(load("contestants"), ("float32",), lightly=False)
    found = training.lines("here", turns, "lightly is not installed", training.FASTER)
    missing = load("measure").NO_BFLOAT16
    assert [line.reason for line in found] == [missing, missing, "lightly is not installed", None]
    assert [line.reached for line in found] == [None, None, None, True]


@pytest.mark.parametrize("way", ["ours", "peer"])
def test_scoring_reads_every_photo(load, contest, photo_folder, way):
    scoring = load("scoring")
    _, turns = contest(getattr(scoring, way), photo_folder, *((False, 1) if way == "ours" else (1,)))
    assert [turn.images for turn in turns] == [3, 3]


def test_kappa_costs_next_to_no_flops(load):
    line = load("scoring").kappa_share()
    assert 1.7 < line.peer < 2 * 1.9  # GFLOPs; a multiplication and an addition count as two
    assert 0 < line.ratio < 0.01
    assert line.reached


def test_openvino_beside_torch(load, monkeypatch, tmp_path):
    runtime = load("runtime")
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path))
    if not runtime.is_installed():
        pytest.skip('pip install -e ".[cpu]"')
    monkeypatch.setattr(runtime, "SIZE", 64)
    line = runtime.beside_torch("test_resnet", False, 2)
    assert line.repeats == 2
    assert 0 < line.details["error_of_ours"] < 1e-4
    assert line.ratio == pytest.approx(line.ours / line.peer, rel=0.5)
    monkeypatch.setattr(runtime, "bfloat16_is_native", lambda device: False)
    assert runtime.beside_torch("test_resnet", True, 1).reason == load("measure").NO_BFLOAT16


def test_without_openvino_a_line_says_so(load, monkeypatch):
    runtime, measure = load("runtime"), load("measure")
    monkeypatch.setattr(runtime, "is_installed", lambda: False)
    report = measure.Report(None, quick=True)
    runtime.measure(runtime.RuntimeOptions(), report)
    assert [line.reason for line in report.lines] == ["openvino is not installed"]


def test_photos_beside_fastdup(load, monkeypatch, photo_folder):
    photos, measure = load("photos"), load("measure")
    report = measure.Report(None, quick=True)
    photos.measure(photos.PhotosOptions(), report)
    assert report.lines[0].reason == "no --fastdup-python is named"
    ran = []
    monkeypatch.setattr(photos, "seconds_of", lambda command: ran.append(command) or len(ran) ** 2)
    options = photos.PhotosOptions(data=photos.Data(photo_folder), fastdup_python="python", repeats=1)
    photos.measure(options, report)
    assert [command[3] for command in ran] == ["score", "dedup", photo_folder] * 2
    line = report.lines[1]
    assert (line.ours, line.peer, line.repeats) == (3 / (4**2 + 5**2), 3 / 6**2, 1)


def test_a_process_that_fails_is_named(load):
    with pytest.raises(RuntimeError, match="no room"):
        load("photos").seconds_of([sys.executable, "-c", "raise SystemExit('no room')"])
