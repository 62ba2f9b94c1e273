"""Two processes of 16 images train the weights that one process of 32 does, in float64 to the last digits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vissl_zoo.methods import METHODS

COMMON = """--backbone test_resnet --image-size 16 --batch-size 32 --dtype float64 --max-steps 4 --log-every 2
    --no-report"""
SPHERE = "--method.latent-dim 48 --method.hidden 64"
SPECIAL = {
    "vi_simsiam": f"demo {SPHERE}",
    "dino": """dino_resnet18_cifar10 --model dino --method.teacher ema --method.prototypes 64
        --method.bottleneck-dim 16""",
}
RUNS = {name: SPECIAL.get(name, f"{name}_resnet18_cifar10 --model {name} {SPHERE}") for name in METHODS}
LOCAL = "local batch norm"  # the control: statistics of each process's own images
TOLERANCE, CONTROL = 1e-10, 1e-6


def commands(data: Path, folder: Path) -> dict[str, list[str]]:
    """The command line of each run, by its name."""
    every = {**RUNS, LOCAL: RUNS["simsiam"] + " --no-sync-batch-norm"}
    return {
        name: [*own.split(), *COMMON.split(), "--data.path", str(data), "--output-dir", str(folder / name)]
        for name, own in every.items()
    }


@pytest.fixture(scope="module")
def runs(train_main, torchrun, shapes_folder, root, tmp_path_factory):
    """{name: (folder of the run in one process, folder of the run in two)}."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    todo = two / "commands.json"
    todo.write_text(json.dumps(list(commands(shapes_folder, two).values())))
    torchrun(root / "tests" / "distributed_driver.py", todo)
    for name, command in commands(shapes_folder, one).items():
        if name != LOCAL:
            assert train_main(*command).code == 0
    return {name: (one / ("simsiam" if name == LOCAL else name), two / name) for name in commands(two, two)}


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_0000004" / "method.safetensors")


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any number, running statistics and batch counts included."""
    assert a.keys() == b.keys()
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one(runs, name):
    one, two = (tensors(run) for run in runs[name])
    assert {v.dtype for v in one.values()} == {torch.float64, torch.int64}
    assert any(k.endswith("running_var") for k in one)
    assert {v.item() for k, v in one.items() if k.endswith("num_batches_tracked")} != {0}
    assert distance(one, two) < TOLERANCE


@pytest.mark.parametrize("name", RUNS)
def test_there_were_two_processes(runs, name):
    one, two = (log(run) for run in runs[name])
    assert {line["processes"] for line in one} == {1}
    assert {line["processes"] for line in two} == {2}


@pytest.mark.parametrize("name", RUNS)
def test_the_logs_agree(runs, name):
    """Means over the processes; deviation and rank are of each process's own share and differ."""
    one, two = (log(run) for run in runs[name])
    assert [line["step"] for line in two[-2:]] == [2, 4]
    for a, b in zip(one, two, strict=True):
        for key in ("step", "epoch", "lr", "loss", "alignment", "kappa_mean"):
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-8), key


def test_the_weights_moved(runs):
    """An equality of weights that never left their start would prove nothing."""
    moved = load_file(runs["dino"][1] / "checkpoints" / "step_0000004" / "optimizer.safetensors")
    assert all(v.abs().max() > 0 for k, v in moved.items() if v.dim() > 1)
    centre = tensors(runs["dino"][1])["teacher.prototype_head.center"]
    assert centre.abs().max() > 1e-3


def test_local_statistics_would_be_seen(runs):
    assert distance(*(tensors(run) for run in runs[LOCAL])) > CONTROL


def test_a_run_of_two_processes_goes_on_in_one_by_force_alone(runs, train_main, shapes_folder):
    folder = runs["simsiam"][1]
    arguments = (*commands(shapes_folder, folder.parent)["simsiam"], "--resume")
    refused = train_main(*arguments)
    assert refused.code == 2
    assert "other values of processes (2, now 1); --resume-force accepts that\n" in refused.err
    outcome = train_main(*arguments, "--resume-force")
    assert (outcome.code, "not as the run began: processes (2, now 1): sums round" in outcome.out) == (
        0,
        True,
    )
