"""`vissl-zoo evaluate MODEL --data.path P`: the paper's tables and figures for any run, export or timm model."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path

from vissl_zoo.cli import parse_flags
from vissl_zoo.cpu.device import take_device
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.protocols import PROTOCOLS
from vissl_zoo.evaluation.run import clear_results, run_protocols, write_results
from vissl_zoo.inference import load_model, open_tables


@dataclass(frozen=True)
class Data:
    """The images."""

    path: str = "shapes"
    """A Hub data set (org/name), a folder of images, parquet files or a folder of them, or `shapes`."""
    train_split: str = "train"
    """The split that classifiers learn from, or a part of one, such as 'train[:90%]'."""
    split: str | None = None
    """The split to measure on, or a part of one; by default `test` or `validation`, whichever exists."""
    image_column: str | None = None
    """The column that holds the images; found by its type if not given."""
    label_column: str | None = None
    """The column that holds the class labels; found if not given, and optional."""
    workers: int | None = None
    """Workers that decode images; by default one for each CPU, 16 at most."""


@dataclass(frozen=True)
class General:
    """What all protocols share."""

    data: Data = field(default_factory=Data)
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    """Which protocols to run, in this order; by default all."""
    output_dir: str | None = None
    """Where metrics.json, predictions.parquet, figures and index.html go; by default a folder in evaluations/
    named after the model and the data."""
    image_size: int | None = None
    """Side of the images in pixels; by default what the model was trained at."""
    random_init: bool = False
    """Leave the model's weights random, for a floor to compare with."""
    seed: int = 0
    """Of every random choice."""
    exact: bool = False
    """Features in plain float32, the same bits in every run on a machine; slower. By default a short trial may choose
    bfloat16 or folded weights where they are faster and agree; a close choice, such as that of k, may then fall
    otherwise."""


# Each protocol's own options, as flags under its name: --linear.epochs and the like.
Arguments = make_dataclass(
    "Arguments",
    [(name, module.Options, field(default_factory=module.Options)) for name, module in PROTOCOLS.items()],
    bases=(General,),
    frozen=True,
)


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about the model, the data or a flag.
    """
    model = arguments[0] if arguments and not arguments[0].startswith("-") else None
    described = "; ".join(f"{name} ({module.TITLE})" for name, module in PROTOCOLS.items())
    flags = parse_flags(
        Arguments,
        Arguments(),
        arguments if model is None else arguments[1:],
        "vissl-zoo evaluate MODEL",
        f"MODEL is a run folder, an export folder, a registered name, or any name of timm.\n\nProtocols: {described}.",
    )
    if model is None:
        raise UserError(
            "evaluate needs a model first: a run folder, an export folder, or a name (see --help)"
        )
    if not 0 <= flags.seed < 2**32 or (flags.image_size is not None and flags.image_size < 1):
        raise UserError(
            f"--seed must lie in [0, 2**32), --image-size be positive: {flags.seed}, {flags.image_size}"
        )
    unknown = [name for name in flags.protocols if name not in PROTOCOLS]
    if unknown:
        raise UserError(f"--protocols: unknown {', '.join(unknown)}; there are: {', '.join(PROTOCOLS)}")
    evaluation = open_evaluation(model, flags)
    options = {f.name: getattr(flags, f.name) for f in fields(flags) if f.name in PROTOCOLS}
    results = run_protocols(evaluation, flags.protocols, options)
    name = f"{model} (random weights)" if flags.random_init else model
    write_results(evaluation, results, name, shlex.join(["vissl-zoo", "evaluate", *arguments]))
    for key, value in results.flat().items():
        print(f"{key:48} {'undefined' if value is None else value}")
    for protocol, why in results.left_out.items():
        print(f"left out: {protocol}: {why}")
    print(f"\nreport: {evaluation.output_dir / 'index.html'}")


def default_name(model: str, flags: General) -> str:
    """The output folder's name: the model's and the data's, so that one evaluation does not overwrite another."""
    path = Path(model).resolve() if Path(model).is_dir() else Path(model)
    name = path.parent.name if path.name == "export" else path.name
    random = "-random" if flags.random_init else ""
    return f"{name}{random}-{Path(flags.data.path).resolve().name.removesuffix('.parquet')}"


def open_evaluation(model: str, flags: General) -> Evaluation:
    """Load the model and open its images; nothing is decoded yet."""
    loaded = load_model(model, random_init=flags.random_init, image_size=flags.image_size)
    data = flags.data
    train, test = open_tables(
        data.path,
        train_split=data.train_split,
        split=data.split,
        image_column=data.image_column,
        label_column=data.label_column,
    )
    folder = Path(flags.output_dir or Path("evaluations") / default_name(model, flags))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_results(folder)
    except OSError as error:
        raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
    return Evaluation(
        loaded.model.to(take_device()),
        loaded.heads,
        train,
        test,
        loaded.image_size,
        folder,
        seed=flags.seed,
        workers=flags.data.workers,
        exact=flags.exact,
    )
