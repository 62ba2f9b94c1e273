"""The scripts do on both sides what they say: small, in this process, and with peers where they are installed."""

import dataclasses
import importlib.util
import types

import numpy as np
import pytest
import torch

from vissl_zoo import training


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


WAYS = [
    pytest.param("our_views", ()),
    pytest.param("lightly_views", (1,), marks=needs("lightly")),
    pytest.param("kornia_views", (), marks=needs("kornia")),
]


@pytest.mark.parametrize("way, arguments", WAYS)
def test_all_ways_make_the_views_asked_for(load, contest, monkeypatch, way, arguments):
    ways = load("view_ways")
    case = ways.ViewCase("small", 32, 24, low=1, low_size=16, batch=16)
    seen = []
    check = ways.ViewCase.check
    monkeypatch.setattr(ways.ViewCase, "check", lambda self, v: (check(self, v), seen.append(v)))
    _, turns = contest(getattr(ways, way), case, *arguments)
    assert [turn.images for turn in turns] == [16, 16]
    views = torch.cat([view.flatten() for batch in seen for view in batch])
    assert abs(views.mean()) < 0.6  # normalised alike
    assert 0.5 < views.std() < 1.5
    assert not torch.equal(seen[0][0], seen[0][1])
    with pytest.raises(AssertionError, match="views of"):
        check(case, seen[0][:2])


def test_a_missing_peer_gives_a_reason(load, monkeypatch):
    views, contestants = load("views"), load("contestants")

    class Fake:
        def __init__(self, name, *_):
            if name == "kornia":
                raise contestants.Missing("kornia is not installed")
            self.rate = 60.0 if name == "ours" else 2.0

        def turn(self, _):
            return contestants.Turn(int(self.rate), 1.0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(views, "Contestant", Fake)
    lightly, kornia = views.lines_of(views.CASES[0], views.ViewsOptions(repeats=2))
    assert (lightly.ratio, lightly.reached, lightly.reason) == (30, True, None)
    assert (kornia.ratio, kornia.reached) == (None, None)
    assert kornia.reason == "kornia is not installed: pip install kornia"


RATES = {
    "ours": [24.0, 26.0],
    "ours, float32": [15.0, 15.0],
    "ready-made": [25.0, 26.0],
    "ready-made, float32": [15.0, 16.0],
    "lightly": [10.0, 10.0],
}
MEMORY = {"ours": 2**30, "ours, float32": 2**31, "lightly": 2**31}


def test_lines_of_training(load):
    lines = load("training").lines("here", RATES, MEMORY, None, gpu=False)
    speed, ready, memory = lines
    assert (speed.ratio, speed.float32_ratio, str(speed.target)) == (2.5, 1.5, "≥ 2.2")
    assert ready.ratio == pytest.approx((0.96 + 1) / 2)
    assert ready.float32_ratio == pytest.approx((1 + 15 / 16) / 2)
    assert str(ready.target) == "≥ 0.92"
    assert (memory.ours, memory.peer, memory.ratio, memory.float32_ratio, memory.reached) == (
        1,
        2,
        0.5,
        1,
        True,
    )


def test_lines_of_training_on_a_gpu_and_without_lightly(load):
    rates = {name: [400 * rate for rate in taken] for name, taken in RATES.items() if name != "lightly"}
    memory = {name: None for name in MEMORY if name != "lightly"}
    lines = load("training").lines("here", rates, memory, "lightly is not installed", gpu=True)
    assert [line.reason is None for line in lines] == [False, True, False, True, True]
    assert [line.reached for line in lines] == [None, True, None, True, True]
    assert lines[-1].ours == pytest.approx(200 * 50_000 / 10_000 / 60)


@pytest.mark.parametrize("way", ["ours", "peer"])
def test_scoring_reads_every_photo(load, contest, photo_folder, way):
    scoring = load("scoring")
    _, turns = contest(getattr(scoring, way), photo_folder, *((True, 1) if way == "ours" else (1,)))
    assert [turn.images for turn in turns] == [3, 3]


def test_kappa_costs_next_to_no_flops(load):
    flops, time = load("scoring").kappa_share(2, 1)
    assert 1.7 < flops.peer < 2 * 1.9  # GFLOPs; a multiplication and an addition count as two
    assert 0 < flops.ratio < 0.01
    assert flops.reached
    assert time.ours > 0
    assert time.details["noise_percent"] >= 0


def test_both_ways_of_accuracy_do_the_same_where_nothing_is_random(load):
    """The plain views are ours: the same crop, flip, jitter, scale and normalisation of the same image."""
    from PIL import Image

    from vissl_zoo.methods import RECIPES
    from vissl_zoo.recipes import parse
    from vissl_zoo.views import ViewPipeline

    chances = [w for name in ("flip", "jitter", "grayscale", "blur") for w in (f"--views.{name}", "0")]
    recipe = parse(["demo", "--views.scale", "1", "1", *chances], RECIPES)
    pixels = load("pictures").photos(np.random.default_rng(0), 1, 32, 32)[0]
    plain = load("plain").views_of(recipe)
    assert len(plain) == 2
    found = plain[0](Image.fromarray(pixels))
    ours = ViewPipeline(32, scale=(1.0, 1.0), flip=0, jitter=0, grayscale=0, blur=0)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    expected = ours(image, torch.tensor([[32, 32]]), 0)[0][0]
    # Crops of all the image are square at best; where both took the whole, the pixels agree.
    assert found.shape == expected.shape
    assert found.mean() == pytest.approx(expected.mean().item(), abs=0.1)
    assert found.std() == pytest.approx(expected.std().item(), abs=0.1)


def test_the_plain_way_trains(load, small, monkeypatch, tmp_path, capsys):
    from accelerate.state import AcceleratorState

    plain = load("plain")
    for name in ("load_images", "build_views"):
        monkeypatch.setattr(training, name, getattr(training, name))
    flags = [*small, "--max-steps", "2", "--data.workers", "1", "--no-report"]
    losses = {}
    for way in plain.WAYS:
        AcceleratorState._reset_state(reset_partial_state=True)
        assert plain.main([way, "64", "demo", *flags, "--output-dir", str(tmp_path / way)]) == 0
        lines = load("loops").last_lines(tmp_path / way, 2)
        assert [line["epoch"] for line in lines] == [0.25, 0.5]  # of 64 images, not of 120
        losses[way] = lines[0]["loss"]
    assert losses["pil"] == pytest.approx(losses["batched"], abs=0.5)
    assert losses["pil"] != losses["batched"]
    assert plain.main(["batched", "999", "demo", *flags, "--output-dir", str(tmp_path / "x")]) == 2
    assert "999 images are asked for" in capsys.readouterr().err
    assert plain.main(["fast", "0"]) == 2


@pytest.fixture
def accuracy(load, monkeypatch):
    """accuracy.py without training: (module, commands); every run's top-1 is .6, less .01 a seed the plain way."""
    import json

    module, commands = load("accuracy"), []

    def train(command, check):
        folder = command[command.index("--output-dir") + 1]
        commands.append(command)
        module.Path(folder).mkdir(parents=True)
        (module.Path(folder) / "recipe.json").write_text(json.dumps({"mixed_precision": "bf16"}))
        return types.SimpleNamespace(returncode=0)

    def top1(folder, *_):
        way, seed = folder.name.split("-")
        return 0.6 - 0.01 * int(seed) * (way == "pil")

    monkeypatch.setattr(module.subprocess, "run", train)
    monkeypatch.setattr(module, "evaluate", top1)
    return module, commands


def test_accuracy_pairs_seeds_and_keeps_its_runs(load, accuracy, tmp_path, capsys):
    module, commands = accuracy
    measure = load("measure")
    options = {"output_dir": str(tmp_path), "seeds": (0, 1, 2), "demo_epochs": 3}
    reports = [measure.Report(None, quick=False) for _ in range(3)]
    module.measure(module.AccuracyOptions(**options, minutes=0.0), reports[0])
    assert not commands
    assert reports[0].lines[0].reason == "0 of 3 pairs are finished: call it again"
    for report in reports[1:]:
        module.measure(module.AccuracyOptions(**options), report)
    assert len(commands) == 6  # the second call makes none anew
    demo, photos = reports[2].lines
    assert (demo.ours, demo.peer, demo.difference) == pytest.approx((0.6, 0.59, 1.0))
    assert demo.reached
    assert demo.details["precision"] == ["bf16"]
    assert demo.details["standard_error"] == pytest.approx(1 / 3**0.5)  # of 0, 1 and 2 points
    assert "no --data.path" in photos.reason
    seeds = [(command[2], command[command.index("--seed") + 1]) for command in commands]
    assert seeds == [(way, str(seed)) for seed in range(3) for way in ("batched", "pil")]


def test_accuracy_makes_a_run_of_another_recipe_anew(load, accuracy, tmp_path, monkeypatch):
    module, commands = accuracy
    options = module.AccuracyOptions(output_dir=str(tmp_path))
    demo = module.sets_of(options)[0]
    assert module.run(demo, "batched", 0, options, begin=True)["top1"] == 0.6
    earlier = module.parse
    monkeypatch.setattr(module, "parse", lambda flags: dataclasses.replace(earlier(flags), lr=0.01))
    assert module.run(demo, "batched", 0, options, begin=False) is None
    assert len(commands) == 1
