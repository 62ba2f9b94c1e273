"""Run, resume, evaluate, ship and tabulate a named set of training runs.

    python experiments/run.py cifar10 --data.path cifar10/ --stages plan        # minutes per run, measured
    python experiments/run.py cifar10 --data.path cifar10/                      # everything, in resumable pieces
    python experiments/run.py cifar10 --data.path cifar10/ --total-minutes 9    # nine minutes of it, then stop

Called again it goes on where it was: runs are resumed, what is done is not done again. plans.py has the sets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from plans import PLANS, Experiment
from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError

SHIP = Path(__file__).resolve().with_name("ship.py")
TRAIN = SHIP.parents[1] / "train.py"
PROBE_STEPS = 40  # of the timing: the second half counts, the first warms up
Stage = Literal["plan", "train", "evaluate", "table", "ship"]


@dataclass(frozen=True)
class Data:
    """The images."""

    path: str = "uoft-cs/cifar10"
    """A Hub data set, a folder or parquet files with the splits that the plan names."""


@dataclass(frozen=True)
class Arguments:
    """What to do with the plan."""

    data: Data = field(default_factory=Data)
    stages: tuple[Stage, ...] = ("plan", "train", "evaluate", "table")
    """Which stages, in this order: `plan` times each run, `ship` adds the weights to the package."""
    only: tuple[str, ...] = ()
    """Names of the runs to take; by default all of the plan, in its order."""
    output_dir: str | None = None
    """Where the runs go; by default runs/ and the plan's name."""
    piece_minutes: float = 9.0
    """A run is saved, left and resumed after this long."""
    total_minutes: float | None = None
    """Stop training after this long; the next call goes on."""


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code, which is 2 after one line about bad input."""
    try:
        name = arguments[0] if arguments and not arguments[0].startswith("-") else None
        about = f"PLAN is one of {', '.join(PLANS)}."
        arguments = arguments if name is None else arguments[1:]
        flags = parse_flags(Arguments, Arguments(), arguments, "experiments/run.py PLAN", about)
        if name not in PLANS:
            raise UserError(f"unknown plan {name!r}; there are: {', '.join(PLANS)}" if name else about)
        carry_out(PLANS[name], flags, Path(flags.output_dir or Path("runs") / name))
    except UserError as error:
        print(f"experiments/run.py: {error}", file=sys.stderr)
        return 2
    return 0


def carry_out(plan: list[Experiment], flags: Arguments, folder: Path) -> None:
    """The stages asked for, each over all runs of the plan.

    Raises:
        UserError: an unknown run, or a command of a stage that failed.
    """
    unknown = set(flags.only) - {run.name for run in plan}
    if unknown:
        known = ", ".join(run.name for run in plan)
        raise UserError(f"--only: no run {', '.join(sorted(unknown))}; there are: {known}")
    runs = [run for run in plan if not flags.only or run.name in flags.only]
    deadline = time.monotonic() + 60 * flags.total_minutes if flags.total_minutes else float("inf")
    stages: dict[str, Callable[[], Any]] = {
        "plan": lambda: print(time_table(runs, flags, folder)),
        "train": lambda: all(train(run, flags, folder / run.name, deadline) for run in runs),
        "evaluate": lambda: [evaluate(run, flags, folder / run.name) for run in runs],
        "table": lambda: print(tabulate(runs, folder)),
        "ship": lambda: [ship(run, folder / run.name) for run in runs if run.ship],
    }
    for stage in flags.stages:
        stages[stage]()


def train_command(run: Experiment, flags: Arguments, folder: Path) -> list[str]:
    """The command line of a run's training."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", str(TRAIN)]
    where = ["--data.path", flags.data.path, "--output-dir", str(folder)]
    return [*launch, run.recipe, *where, *run.flags]


def time_table(runs: list[Experiment], flags: Arguments, folder: Path) -> str:
    """Minutes that each run will take, extrapolated from a few steps of it on this machine."""
    lines = [f"{'run':44} {'images/s':>9} {'minutes':>8}"]
    for run in runs:
        probe = folder / "timing" / run.name
        if not (probe / "timing.json").exists():
            short = [
                "--max-steps",
                str(PROBE_STEPS),
                "--log-every",
                str(PROBE_STEPS // 2),
                "--no-report",
                "--overwrite",
            ]
            call([*train_command(run, flags, probe), *short])
            speed = _history(probe)[-1]["images_per_second"]
            recipe = json.loads((probe / "recipe.json").read_text())
            epochs = _history(probe)[-1]["epoch"]
            images = PROBE_STEPS * recipe["batch_size"] / epochs * recipe["epochs"]
            timing = {"images_per_second": speed, "minutes": images / speed / 60}
            (probe / "timing.json").write_text(json.dumps(timing) + "\n")
        timing = json.loads((probe / "timing.json").read_text())
        lines.append(f"{run.name:44} {timing['images_per_second']:9.0f} {timing['minutes']:8.1f}")
    return "\n".join(lines)


def train(run: Experiment, flags: Arguments, folder: Path, deadline: float) -> bool:
    """Train a run to its end, piece by piece; False if the time is up before."""
    while not finished(folder):
        left = min(flags.piece_minutes, (deadline - time.monotonic()) / 60)
        if left <= 0:
            print(f"{run.name}: the time is up; call again to go on")
            return False
        call([*train_command(run, flags, folder), "--max-minutes", f"{left:.3f}", "--resume", "auto"])
    return True


def finished(folder: Path) -> bool:
    """Whether a run has come to its end: only then is there an export."""
    return (folder / "export" / "model.safetensors").exists()


def evaluate(run: Experiment, flags: Arguments, folder: Path) -> None:
    """`vissl-zoo evaluate` of a finished run, and of the same network untrained, into its folder."""
    learn, measure = run.splits
    data = ["--data.path", flags.data.path, "--data.train-split", learn, "--data.split", measure]
    for out, options in (
        ("evaluation", []),
        ("untrained", ["--random-init", "--protocols", "knn", "uncertainty"]),
    ):
        if finished(folder) and not (folder / out / "metrics.json").exists():
            command = [sys.executable, "-c", "from vissl_zoo.commands import main; raise SystemExit(main())"]
            call([*command, "evaluate", str(folder), *data, *options, "--output-dir", str(folder / out)])


def tabulate(runs: list[Experiment], folder: Path) -> str:
    """A markdown table of what was measured, also written to RESULTS.md; a run without figures has dashes."""
    columns = {
        "kNN top-1": ("evaluation", "knn.top1"),
        "untrained": ("untrained", "knn.top1"),
        "linear top-1": ("evaluation", "linear.top1"),
        "AUROC of κ (kNN)": ("evaluation", "uncertainty.knn.auroc.kappa.value"),
        "(linear)": ("evaluation", "uncertainty.linear.auroc.kappa.value"),
        "norm": ("evaluation", "uncertainty.knn.auroc.norm.value"),
        "kNN similarity": ("evaluation", "uncertainty.knn.auroc.knn_distance.value"),
        "two views": ("evaluation", "uncertainty.knn.auroc.two_view_cosine.value"),
        "Recall@1": ("evaluation", "retrieval.recall_at_1"),
        "R-AUROC": ("evaluation", "retrieval.r_auroc"),
    }
    lines = ["| run | epochs | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for run in runs:
        cells = [_figure(folder / run.name / out / "metrics.json", key) for out, key in columns.values()]
        history = _history(folder / run.name)
        epochs = f"{history[-1]['epoch']:.0f}" if history else "–"
        lines.append(f"| {run.name} | {epochs} | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(table + "\n")
    return table


def ship(run: Experiment, folder: Path) -> None:
    """Add a finished run's weights to the package, under each of its names, and their cards to model_cards/."""
    if not finished(folder):
        return
    recipe = json.loads((folder / "recipe.json").read_text())
    size = f"{recipe['epochs']} epochs at {recipe['image_size']} pixels"
    for name, method, note in ((None, None, ""), *run.also):
        command = [sys.executable, str(SHIP), str(folder), "--tag", run.name.split(".")[1]]
        command += ["--evaluation", str(folder / "evaluation"), "--dataset", "uoft-cs/cifar10"]
        command += ["--description", f"{run.about}, {size}"]
        command += [] if name is None else ["--model", name, "--method", method]
        call([*command, "--note", f"{note} {run.note}".strip()])


def call(command: list[str]) -> None:
    """Run a command, its output on this terminal.

    Raises:
        UserError: it failed; its own message stands above.
    """
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise UserError(f"this command ended with code {done.returncode}: {' '.join(command)}")


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _figure(path: Path, key: str) -> str:
    """A figure of a metrics.json by its dotted key, with three decimals, or a dash."""
    value = json.loads(path.read_text()) if path.exists() else None
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return f"{value:.3f}" if isinstance(value, (int, float)) else "–"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
