"""Two processes of 32 images train the weights that one process of 64 does: in float64 to the last digits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vissl_zoo.methods import METHODS

TOLERANCES = {
    "float64": 1e-12,
    "float32": 1e-4,
}  # float32: 1e-5 was measured, and processors round differently
COMMON = """--backbone test_resnet --image-size 16 --batch-size 64 --max-steps 20 --log-every 10 --lr 0.005
    --lr-batch-size 64 --warmup-epochs 0 --mixed-precision no --threads 1 --no-fit --no-report"""
SPHERE = "--method.latent-dim 48 --method.hidden 64"
DINO = "dino_resnet18_cifar10 --model dino --method.prototypes 64 --method.bottleneck-dim 16 --method.teacher"
VI = f"demo {SPHERE} --method.variant"
METHOD_RUNS = {
    **{name: f"{name}_resnet18_cifar10 --model {name} {SPHERE}" for name in METHODS},
    "vi_simsiam": f"{VI} detached",
    "paper": f"{VI} paper --method.no-output-norm",
    "beta": f"{VI} beta --method.kappa-map exp --method.kappa-warmup 0.5",
    "dino": f"{DINO} shared",
    "dino, EMA": f"{DINO} ema",
    "accumulated": f"simclr_resnet18_cifar10 --model simclr {SPHERE} --batch-size 32 --gradient-accumulation 2",
}
NARROW = ("simsiam", "paper")  # docs/reliability.md has the figures of the others
RUNS = {(name, "float64"): f"{own} --dtype float64" for name, own in METHOD_RUNS.items()}
RUNS |= {(name, "float32"): f"{METHOD_RUNS[name]} --lr 0.0005" for name in NARROW}
# The controls: batch norm's statistics, and the loss's negatives, of each process's own images.
CONTROLS = {
    "local batch norm": f"{METHOD_RUNS['simsiam']} --dtype float64 --no-sync-batch-norm",
    "local negatives": f"{METHOD_RUNS['simclr']} --dtype float64",  # the driver knows it by its folder
}
CONTROL = 1e-3


def commands(data: Path, folder: Path) -> dict[tuple[str, str], list[str]]:
    """The command line of each run, by its name and precision; those of the controls come last."""
    every = {**RUNS, **{(name, "float64"): own for name, own in CONTROLS.items()}}
    where = ("--data.path", str(data), "--output-dir")
    recipes = {key: own.split() for key, own in every.items()}
    return {
        key: [recipe, *COMMON.split(), *own, *where, str(folder / " ".join(key))]
        for key, (recipe, *own) in recipes.items()
    }


@pytest.fixture(scope="module")
def runs(train_main, torchrun, shapes_folder, root, tmp_path_factory):
    """{(name, precision): (folder of the run in one process, folder of the run in two)}."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    todo = two / "commands.json"
    todo.write_text(json.dumps(list(commands(shapes_folder, two).values())))
    torchrun(root / "tests" / "distributed_driver.py", todo)
    threads = torch.get_num_threads()
    for key, command in commands(shapes_folder, one).items():
        if key[0] not in CONTROLS:
            assert train_main(*command).code == 0
    torch.set_num_threads(threads)
    alone = {"local batch norm": "simsiam", "local negatives": "simclr"}
    return {
        (name, dtype): (one / f"{alone.get(name, name)} {dtype}", two / f"{name} {dtype}")
        for name, dtype in commands(two, two)
    }


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_0000020" / "method.safetensors")


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """‖a - b‖ / ‖a‖ of all weights together and of all running statistics together, the larger of the two."""
    assert a.keys() == b.keys()
    found = []
    for running in (False, True):
        keys = [k for k in a if ("running" in k or "center" in k or "num_batches" in k) == running]
        first, second = (torch.cat([tensors[k].double().flatten() for k in keys]) for tensors in (a, b))
        found.append(((first - second).norm() / first.norm()).item())
    return max(found)


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_two_processes_train_as_one(runs, run):
    one, two = (tensors(folder) for folder in runs[run])
    assert {v.dtype for v in one.values()} == {getattr(torch, run[1]), torch.int64}
    assert any(k.endswith("running_var") for k in one)
    assert {v.item() for k, v in one.items() if k.endswith("num_batches_tracked")} != {0}
    assert distance(one, two) < TOLERANCES[run[1]]


@pytest.mark.parametrize("name", RUNS, ids=" ".join)
def test_there_were_two_processes(runs, name):
    one, two = (log(run) for run in runs[name])
    assert {line["processes"] for line in one} == {1}
    assert {line["processes"] for line in two} == {2}


@pytest.mark.parametrize("name", METHOD_RUNS)
def test_the_logs_agree(runs, name):
    """Means over the processes; deviation and rank are of each process's own share and differ."""
    one, two = (log(run) for run in runs[name, "float64"])
    assert [line["step"] for line in two[-2:]] == [10, 20]
    for a, b in zip(one, two, strict=True):
        for key in ("step", "epoch", "lr", "loss", "alignment", "kappa_mean"):
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-8), key


@pytest.mark.parametrize("name", METHOD_RUNS)
def test_the_weights_moved(runs, name):
    """An equality of weights that never left their start would prove nothing."""
    folder = runs[name, "float64"][1] / "checkpoints" / "step_0000020"
    weights, momentum = (load_file(folder / f"{part}.safetensors") for part in ("method", "optimizer"))
    assert all(v.abs().max() > 0 for v in momentum.values() if v.dim() > 1)
    if name.startswith("dino"):
        centre = weights["teacher.prototype_head.center" if "EMA" in name else "model.prototype_head.center"]
        assert centre.abs().max() > 1e-3


@pytest.mark.parametrize("name", CONTROLS)
def test_what_sees_its_own_images_alone_would_be_noticed(runs, name):
    assert distance(*(tensors(run) for run in runs[name, "float64"])) > CONTROL


def test_a_run_of_two_processes_goes_on_in_one_by_force_alone(runs, train_main, shapes_folder):
    key = ("simsiam", "float32")
    arguments = (*commands(shapes_folder, runs[key][1].parent)[key], "--resume")
    refused = train_main(*arguments)
    assert refused.code == 2
    assert "other values of processes (2, now 1); --resume-force accepts that\n" in refused.err
    outcome = train_main(*arguments, "--resume-force")
    assert (outcome.code, "not as the run began: processes (2, now 1): sums round" in outcome.out) == (
        0,
        True,
    )
