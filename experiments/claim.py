"""Is κ to be had without its cost in accuracy? The seven arms of docs/the_claim.md, measured, tabulated and drawn.

    python experiments/run.py claim_choice --data.path cifar10/                       # three rates an arm
    python experiments/run.py claim --data.path cifar10/ --stages train               # the arms
    python experiments/claim.py runs/claim --data.path cifar10/                       # docs/the_claim.json and .png

What is measured already is not measured again, and runs that are missing are left out. For one seed projector and
predictor are at hand, too: their cosines are those of the paper's Fig. 11.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from plans import CLAIM_ARMS
from run import Data, call
from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError
from vissl_zoo.output import write_text, write_whole

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROTOCOLS = ("knn", "linear", "uncertainty", "retrieval", "cosine")
FIT_IMAGES = 10_000
COLOURS = dict(
    zip(
        CLAIM_ARMS,
        ("black", "gray", "tab:red", "tab:orange", "tab:green", "tab:blue", "tab:purple"),
        strict=True,
    )
)


@dataclass(frozen=True)
class Arguments:
    """Where the images are."""

    data: Data = field(default_factory=Data)


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code, which is 2 after one line about bad input."""
    try:
        if not arguments or arguments[0].startswith("-"):
            raise UserError("the folder of the runs comes first, such as runs/claim")
        folder = Path(arguments[0])
        flags = parse_flags(
            Arguments, Arguments(), arguments[1:], "experiments/claim.py FOLDER", __doc__ or ""
        )
        runs = sorted(run for run in folder.glob("*-*") if (run / "export" / "model.safetensors").exists())
        if not runs:
            raise UserError(f"{folder} holds no finished run")
        for run in runs:
            measure(run, flags.data.path)
        found = {run.name: figures(run) for run in runs}
        write_text(DOCS / "the_claim.json", json.dumps(found, indent=1) + "\n")
        figure = draw(found)
        write_whole(DOCS / "the_claim.png", lambda path: figure.savefig(path, dpi=120, format="png"))
    except UserError as error:
        print(f"experiments/claim.py: {error}", file=sys.stderr)
        return 2
    return 0


def measure(run: Path, data: str) -> None:
    """Evaluate a run with the κ that its loss learnt, and with κ fitted to clusters by `fit-kappa`."""
    command = [sys.executable, "-c", "from vissl_zoo.commands import main; raise SystemExit(main())"]
    fitted, where = run / "fitted", ["--data.path", data]
    if not (run / "evaluation" / "metrics.json").exists():
        out = ["--output-dir", str(run / "evaluation")]
        call([*command, "evaluate", str(run), *where, "--protocols", *PROTOCOLS, *out])
    if not (fitted / "model.safetensors").exists():
        limit = ["--limit", str(FIT_IMAGES), "--no-report"]
        call([*command, "fit-kappa", "--model", str(run), *where, *limit, "--output-dir", str(fitted)])
    if not (fitted / "evaluation" / "metrics.json").exists():
        out = ["--output-dir", str(fitted / "evaluation")]
        call([*command, "evaluate", str(fitted), *where, "--protocols", "knn", "linear", "uncertainty", *out])


def figures(run: Path) -> dict[str, Any]:
    """What docs/the_claim.json keeps of a run."""
    learnt, fitted = (
        json.loads((folder / "evaluation" / "metrics.json").read_text()) for folder in (run, run / "fitted")
    )
    images = pd.read_parquet(run / "evaluation" / "predictions.parquet")
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = history[:: max(1, len(history) // 50)]
    quartiles = learnt.get("cosine", {}).get("latent")
    return {
        "knn": learnt["knn"]["top1"],
        "linear": learnt["linear"]["top1"],
        "auroc": {kind: _auroc(learnt, kind) for kind in ("knn", "linear")},
        "auroc_fitted": {kind: _auroc(fitted, kind) for kind in ("knn", "linear")},
        "auroc_norm": {kind: _auroc(learnt, kind, "norm") for kind in ("knn", "linear")},
        "r_auroc": learnt["retrieval"]["r_auroc"]["value"],
        "accuracy_by_fifth_of_kappa": fifths(images),
        "std_log_kappa": float(np.log(images["kappa"]).std()),
        "pair_cosine": quartiles if isinstance(quartiles, dict) else None,
        "curve": {
            key: [line[key] for line in kept] for key in ("epoch", "cosine", "effective_rank", "kappa_mean")
        },
    }


def _auroc(metrics: dict[str, Any], kind: str, score: str = "kappa") -> float:
    return metrics["uncertainty"][kind]["auroc"][score]["value"]


def fifths(images: pd.DataFrame) -> list[float]:
    """kNN accuracy of the fifths of the images, from the least κ to the highest."""
    order = images.sort_values("kappa", kind="stable")
    right = (order["knn_pred"] == order["label"]).to_numpy(dtype=float)
    return [float(part.mean()) for part in np.array_split(right, 5)]


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    """The weight of a pair, what each run is worth, and the rank of the embeddings over the training."""
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    weight, worth, rank = figure.subplots(1, 3)
    t = np.linspace(0.02, 0.98, 200)
    kappa = t / (1 - t)  # the best κ of a pair with similarity t, in units of d - 1
    weights = {"simsiam": np.ones_like(t), "paper_cosine": 256 * kappa / (1 + t)}
    weights |= {"beta_half": kappa**0.5 / (1 + t), "beta_one": 1 / (1 + t)}
    for arm, value in weights.items():
        weight.plot(t, value, color=COLOURS[arm], label=arm.removesuffix("_cosine"))
    weight.set(xlabel="similarity t = μ·z of a pair", ylabel="weight of its gradient", yscale="log")
    weight.set_title("which pairs the trunk learns from (d - 1 = 256)")
    for name, run in found.items():
        arm, seed = name.rsplit("-", 1)
        if arm == "detached":  # its trunk is SimSiam's
            continue
        label = arm.replace("simsiam", "simsiam, detached") if arm == "simsiam" else arm
        label = label if seed == "0" else None
        worth.scatter(100 * run["knn"], run["auroc"]["knn"], color=COLOURS[arm], label=label, marker="o")
        worth.scatter(100 * run["knn"], run["auroc_fitted"]["knn"], color=COLOURS[arm], marker="x")
        if seed == "0":
            rank.plot(run["curve"]["epoch"], run["curve"]["effective_rank"], color=COLOURS[arm], label=label)
    worth.set(xlabel="kNN top-1 (%)", ylabel="AUROC of κ for errors of kNN")
    worth.set_title("κ of the loss (●) and fitted to clusters (×)")
    rank.set(xlabel="epoch", ylabel="effective rank of the embeddings")
    rank.set_title("one seed of each arm")
    for axes in (weight, worth, rank):
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
