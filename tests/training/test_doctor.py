"""Each diagnosis on a run that goes wrong on purpose, none on one that goes well, and its cost."""

import json
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from vissl_zoo.training.doctor import DIAGNOSES, PATIENCE, Doctor
from vissl_zoo.training.log import collapse_signals

SMALL = "--mixed-precision no --image-size 16 --batch-size 16 --log-every 1 --warmup-epochs 0 --no-report"
NO_AUGMENTATION = "--views.scale 1 1 --views.flip 0 --views.jitter 0 --views.grayscale 0"
DINO = "dino_resnet18_cifar10 --method.teacher shared --model dino --backbone test_resnet --method.prototypes 256"
WARMED_UP = "--warmup-epochs 4 --batch-size 32 --log-every 5"

ON_PURPOSE = {
    "collapsed": f"demo --weight-decay 30 --lr 0.02 --max-steps 70 {WARMED_UP}",
    "low rank": f"demo --method.no-output-norm --weight-decay 0.02 --lr 1 --max-steps 120 {WARMED_UP}",
    "dead kappa": "demo --method.variant paper --method.kappa-map exp --lr 0.05 --max-steps 15",
    "saturated kappa": f"demo --method.variant beta --method.kappa-map exp --lr 1 --max-steps 24 {NO_AUGMENTATION}",
    "indifferent kappa": "demo --method.kappa-weight 0 --weight-decay 20 --lr 0.01 --max-steps 20",
    "uniform teacher": f"{DINO} --method.teacher-temperature 10 --max-steps 8",
    "one prototype": f"{DINO} --method.center-momentum 1 --method.teacher-temperature 0.02 --lr 0.3 --max-steps 10",
}


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    """96 blank images of as many greys: their views are the same."""
    path = tmp_path_factory.mktemp("greys") / "greys.parquet"
    images = [Image.new("RGB", (16, 16), (int(g),) * 3) for g in np.linspace(0, 255, 96)]
    features = datasets.Features(image=datasets.Image())
    datasets.Dataset.from_dict({"image": images}, features=features).to_parquet(path)
    return path


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ON_PURPOSE)
def test_run_that_fails_on_purpose(name, greys, shapes_folder, train_main, tmp_path):
    data = greys if name == "saturated kappa" else shapes_folder
    recipe, *flags = ON_PURPOSE[name].split()
    outcome = train_main(recipe, *SMALL.split(), *flags, "--data.path", data, "--output-dir", tmp_path)
    assert outcome.code == 0, outcome.err
    said = [s for line in lines_of(tmp_path) for s in line.get("diagnoses", [])]
    sentence = next(d.sentence for d in DIAGNOSES if d.name == name).split(":")[0]
    assert any(s.startswith(sentence) for s in said), said
    assert sentence in outcome.err


def test_every_diagnosis_has_its_run():
    assert {d.name for d in DIAGNOSES} == set(ON_PURPOSE)


def healthy(step, **changes):
    line = {
        "step": step,
        "embedding_std": 0.9,
        "effective_rank": 30.0,
        "kappa_mean": 200.0,
        "kappa_std": 60.0,
    }
    return {**line, **changes}


def test_a_healthy_run_hears_nothing():
    doctor = Doctor(steps=100, dim=256)
    lines = [healthy(step) for step in range(1, 100, 5)]
    assert not any(doctor.examine(line) for line in lines)
    assert doctor.at_the_end(lines) == []


def test_one_odd_line_alarms_nobody_and_a_diagnosis_is_made_once():
    doctor = Doctor(steps=100, dim=256)
    doctor.examine(healthy(1))
    ill = [healthy(step, embedding_std=0.01) for step in range(50, 60)]
    for line in ill[: PATIENCE - 1]:
        assert doctor.examine(line) == []
    assert doctor.examine(healthy(70)) == []  # the streak is broken
    found = [sentence for line in ill for sentence in doctor.examine(line)]
    assert len(found) == 1
    assert "0.010" in found[0]


def test_kappa_that_has_not_settled_is_said_at_the_end():
    doctor = Doctor(steps=100, dim=256)
    lines = [healthy(step, kappa_mean=10.0 * 1.2**step) for step in range(32)]
    for line in lines:
        doctor.examine(line)
    assert any("has not settled" in s for s in doctor.at_the_end(lines))


def test_signals_of_known_embeddings():
    generator = torch.Generator().manual_seed(0)
    spread = collapse_signals(torch.randn(2, 2000, 32, generator=generator))
    assert spread["embedding_std"].item() == pytest.approx(1.0, abs=0.02)
    assert spread["effective_rank"].item() == pytest.approx(32, rel=0.02)
    point = collapse_signals(torch.ones(2, 50, 32) + 1e-4 * torch.randn(2, 50, 32, generator=generator))
    assert point["embedding_std"].item() < 0.01
    line = torch.randn(2, 50, 1, generator=generator) * torch.ones(32)
    assert collapse_signals(line)["effective_rank"].item() == pytest.approx(1.0, abs=0.01)


def test_costs_less_than_a_hundredth_of_a_step():
    """Signals and diagnosis of one line, against log_every = 20 steps of the paper's smallest network."""
    from vissl_zoo.models import create_model

    model = create_model("vi_simsiam_resnet18", num_classes=0).train()
    images = torch.randn(32, 3, 64, 64)
    embedding = torch.randn(2, 32, 512)
    doctor = Doctor(steps=100, dim=2048)
    steps, examinations = [], []
    for step in range(3):
        start = time.perf_counter()
        model(images).sum().backward()
        steps.append(time.perf_counter() - start)
        start = time.perf_counter()
        signals = {k: v.item() for k, v in collapse_signals(embedding).items()}
        doctor.examine({**healthy(step), **signals})
        examinations.append(time.perf_counter() - start)
    assert min(examinations) < 0.01 * 20 * min(steps)
