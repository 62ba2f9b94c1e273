"""On a CUDA device everything is as on the CPU: views, steps, κ, saving and resuming. Skipped where there is none."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.inference import load_model
from vissl_zoo.methods import METHODS, RECIPES, create_method
from vissl_zoo.training.run_folder import Run
from vissl_zoo.views import ViewPipeline

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RECIPE_OF = {name: "demo" if name == "vi_simsiam" else f"{name}_resnet18_cifar10" for name in METHODS}


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch):
    """The other tests of training are told to stay on the CPU; and float32 is float32 here."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def method_of(name, **changes):
    torch.manual_seed(0)
    recipe = RECIPES[RECIPE_OF[name]].recipe
    model = vissl_zoo.create_model(name, backbone="test_resnet", num_classes=0, **recipe.method.model_args())
    return create_method(name, model, recipe.method, **changes).train()


def views_of(device, low=1):
    pipeline = ViewPipeline(32, low_size=16, low=low, channels_last=True)
    images = torch.randint(
        0, 256, (48, 3, 40, 44), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return pipeline(images.to(device), torch.tensor([[40, 44]] * 48), 7)


def step(method, views, precision=None):
    """The loss of one step, and the gradient of every weight, on the CPU."""
    method.on_step_start(0.5)
    with torch.autocast("cuda", precision or torch.bfloat16, enabled=precision is not None):
        loss = method(views).loss
    loss.backward()
    method.on_step_end()
    return loss.item(), {n: p.grad.cpu().double() for n, p in method.named_parameters() if p.grad is not None}


def test_views_are_the_cpus():
    for here, there in zip(views_of("cpu"), views_of("cuda"), strict=True):
        assert there.device.type == "cuda"
        torch.testing.assert_close(there.cpu(), here, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_the_cpus(name):
    here = step(method_of(name).double(), [v.double() for v in views_of("cpu")])
    there = step(method_of(name).double().cuda(), [v.double().cuda() for v in views_of("cpu")])
    assert there[0] == pytest.approx(here[0], rel=1e-6)
    assert here[1].keys() == there[1].keys()
    for key, gradient in here[1].items():
        torch.testing.assert_close(
            there[1][key], gradient, rtol=1e-4, atol=1e-6 * gradient.abs().max().item() + 1e-9
        )


@pytest.mark.parametrize("name", METHODS)
def test_a_step_in_bfloat16_points_where_that_in_float32_does(name):
    views = views_of("cuda")
    exact, narrow = (step(method_of(name).cuda(), views, p) for p in (None, torch.bfloat16))
    assert narrow[0] == pytest.approx(exact[0], rel=0.05)
    flat = [torch.cat([gradients[k].flatten() for k in exact[1]]) for gradients in (exact[1], narrow[1])]
    assert torch.cosine_similarity(*flat, dim=0) > 0.9


@pytest.mark.parametrize("name", METHODS)
def test_no_step_makes_the_host_wait(name):
    method = method_of(name).cuda()
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, fused=True)
    images = torch.randint(0, 256, (16, 3, 40, 40), dtype=torch.uint8).cuda()
    pipeline = ViewPipeline(32, low_size=16, low=1, channels_last=True)
    sizes = torch.tensor([[40, 40]] * 16)
    for number in range(2):  # what is kept between steps is made in the first
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            views = pipeline(images, sizes, number)
            method.on_step_start(0.5)
            with torch.autocast("cuda", torch.bfloat16):
                loss = method(views).loss
            loss.backward()
            optimizer.step()
            method.on_step_end()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_that_waiting_would_be_noticed():
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones(3, device="cuda").sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def arguments(name, small, folder, *more):
    if name == "dino":
        small = [a for a in small if a not in ("--method.latent-dim", "64")]
    network = ("--model", name, "--backbone", "test_resnet")
    recipe = () if name == "vi_simsiam" else (RECIPE_OF[name],)
    return (*recipe, *network, *small, "--mixed-precision", "bf16", "--output-dir", folder, *more)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_stopped_and_resumed_goes_on_as_one_that_was_not(
    train_main, small, tmp_path, monkeypatch, name
):
    whole, broken = (
        arguments(name, small, tmp_path / n, "--max-steps", "8", "--no-report") for n in ("whole", "broken")
    )
    outcome = train_main(*whole)
    assert outcome.code == 0, outcome.err
    with monkeypatch.context() as patch:
        patch.setattr(Run, "out_of_time", property(lambda run: run.step == 4))
        assert train_main(*broken, "--max-minutes", "5").code == 0
    outcome = train_main(*broken, "--resume")
    assert outcome.code == 0, outcome.err
    recipe = json.loads((tmp_path / "whole" / "recipe.json").read_text())
    assert recipe["mixed_precision"] == "bf16"
    ends = [load_file(tmp_path / n / "export" / "model.safetensors") for n in ("whole", "broken")]
    for key, value in ends[0].items():  # a GPU adds in no fixed order: near, not equal
        difference = (ends[1][key].double() - value.double()).norm()
        assert difference <= 0.02 * value.double().norm() + 1e-3, key


def test_a_training_reports_and_its_model_answers_as_on_the_cpu(train_main, small, tmp_path):
    folder = tmp_path / "run"
    outcome = train_main(
        *arguments("vi_simsiam", small, folder, "--max-steps", "6", "--report-images", "200")
    )
    assert outcome.code == 0, outcome.err
    assert (folder / "report" / "metrics.json").exists()
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        here, there = (load_model(folder, device=d).model.represent(images.to(d)) for d in ("cpu", "cuda"))
    for value, other in zip(here, there, strict=True):
        assert other.device.type == "cuda"
        torch.testing.assert_close(other.cpu(), value, rtol=1e-3, atol=1e-3)


def test_photos_get_the_cpus_scores(demo_run, tmp_path, monkeypatch):
    """`score` takes the GPU by itself; --exact is what both are held to."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (60, 50 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    tables = []
    for name in ("cuda", "cpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda name=name: name == "cuda")
        table = tmp_path / f"{name}.parquet"
        assert (
            main(["score", str(photos), "--model", str(demo_run[0]), "--exact", "--output", str(table)]) == 0
        )
        tables.append(pd.read_parquet(table).set_index("path").sort_index())
    for column in ("kappa", "uncertainty"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=2e-3)
