"""`vissl-zoo evaluate MODEL --data.path P`: the paper's tables and figures for any run, export or timm model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from vissl_zoo.cli import DataFlags, Model, OptionalCount, Seed, parse_flags
from vissl_zoo.cpu.device import take_device
from vissl_zoo.evaluation.evaluation_run import evaluate
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.output import flat


@dataclass(frozen=True)
class General:
    """What all protocols share."""

    model: Model = ""
    """A run folder, an export folder, a registered name, or any name of timm."""
    data: DataFlags = field(default_factory=DataFlags)
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    """Which protocols to run, in this order; by default all."""
    output_dir: str | None = None
    """Where metrics.json, predictions.parquet, figures and index.html go; by default a folder in evaluations/
    named after the model and the data."""
    image_size: OptionalCount = None
    """Side of the images in pixels; by default what the model was trained at."""
    random_init: bool = False
    """Leave the model's weights random, for a floor to compare with."""
    seed: Seed = 0
    """Of every random choice."""
    exact: bool = False
    """Decode in full and compute in plain float32, the same bits in every run on a machine; slower. By default weights
    are folded, and where the hardware computes in bfloat16 that is used; a close choice, such as that of k, may then
    fall otherwise."""


# Each protocol's own options, as flags under its name: --linear.epochs and the like.
Options: Any = make_dataclass(
    "Options",
    [(name, module.Options, field(default_factory=module.Options)) for name, module in PROTOCOLS.items()],
    bases=(General,),
    frozen=True,
)


GIVEN = ("model", "data", "output_dir")


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about the model, the data or a flag."""
    described = "; ".join(f"{name} ({module.TITLE})" for name, module in PROTOCOLS.items())
    flags: Any = parse_flags(
        Options, Options(), arguments, "vissl-zoo evaluate", f"Measure a model.\n\nProtocols: {described}."
    )
    folder = Path(flags.output_dir or Path("evaluations") / default_name(flags))
    metrics = evaluate(
        flags.model,
        flags.data.path,
        output_dir=folder,
        device=take_device(),
        command=shlex.join(["vissl-zoo", "evaluate", *arguments]),
        **{f.name: getattr(flags.data, f.name) for f in fields(flags.data) if f.name != "path"},
        **{f.name: getattr(flags, f.name) for f in fields(flags) if f.name not in GIVEN},
    )
    for key, value in flat({name: metrics[name] for name in PROTOCOLS if name in metrics}).items():
        print(f"{key:48} {'undefined' if value is None else value}")
    for protocol, why in metrics["left_out"].items():
        print(f"left out: {protocol}: {why}")
    print(f"\nreport: {folder / 'index.html'}")


def default_name(flags: General) -> str:
    """The output folder's name: the model's and the data's, so that one evaluation does not overwrite another."""
    path = Path(flags.model)
    path = path.resolve() if path.is_dir() else path
    name = path.parent.name if path.name == "export" else path.name
    random = "-random" if flags.random_init else ""
    return f"{name}{random}-{Path(flags.data.path).resolve().name.removesuffix('.parquet')}"
