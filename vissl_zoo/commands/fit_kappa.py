"""`vissl-zoo fit-kappa --model M --data.path P --output-dir DIR`: κ for any timm backbone, from unlabelled images."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vissl_zoo.cli import parse_flags
from vissl_zoo.cpu.device import take_device
from vissl_zoo.data import ImageTable
from vissl_zoo.errors import UserError
from vissl_zoo.evaluation.run import clear_results
from vissl_zoo.fitting.kappa import Fitted, fit_kappa_with_figures
from vissl_zoo.fitting.report import fit_figures, render_card, sample, split_tables, summary, write_report
from vissl_zoo.hub import export_model
from vissl_zoo.inference import Loaded, load_model, open_tables


@dataclass(frozen=True)
class Data:
    """The images; labels are never fitted to, and only measure the result."""

    path: str = "shapes"
    """A folder of images, a Hub data set (org/name), parquet files or a folder of them, or `shapes`."""
    train_split: str = "train"
    """The split to fit to, or a part of one, such as 'train[:90%]'."""
    split: str | None = None
    """The split to measure on, or a part of one; by default `test` or `validation`, whichever exists."""
    image_column: str | None = None
    """The column that holds the images; found by its type if not given."""
    label_column: str | None = None
    """The column that holds the class labels; found if not given, and optional."""
    workers: int | None = None
    """Workers that decode images; by default one for each CPU, 16 at most."""


@dataclass(frozen=True)
class Arguments:
    """What to fit, to what, and where the export goes."""

    model: str | None = None
    """A name of timm or of the zoo, a run or export folder, or hf-hub:ORG/NAME."""
    data: Data = field(default_factory=Data)
    output_dir: str | None = None
    """Where the export (config.json, model.safetensors, README.md) and its report/ go."""
    random_init: bool = False
    """Leave the backbone's weights random, for a floor to compare with."""
    views: int = 8
    """Augmented views of each image, 2 or more; the time is proportional to them."""
    limit: int | None = None
    """Images to fit to at most, drawn by the seed; by default all."""
    image_size: int | None = None
    """Side of the views in pixels; by default what the model was trained at."""
    kappa_map: Literal["exp", "softplus"] = "exp"
    """How the κ head's output becomes positive."""
    kappa_hidden: int | None = None
    """Width of the κ head; by default the embedding's, 256 at most."""
    steps: int = 1500
    """Steps of the fit; the best on held-out images is kept."""
    lr: float = 1e-3
    """Learning rate of the fit."""
    exact: bool = False
    """Run the backbone in plain float32, whatever a trial would find faster."""
    report_images: int = 2000
    """Images measured on at most, for the report; neighbours are found among four times as many."""
    report: bool = True
    """Measure and draw the result; without, fit and export only."""
    seed: int = 0
    """Of every random choice."""


def main(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        UserError: one line about the model, the data or a flag.
    """
    about = (
        "Fit a κ head to how well augmented views of unlabelled images agree; the backbone stays as it is."
    )
    flags = parse_flags(Arguments, Arguments(), arguments, "vissl-zoo fit-kappa", about)
    _check(flags)
    command = shlex.join(["vissl-zoo", "fit-kappa", *arguments])
    loaded = load_model(flags.model, random_init=flags.random_init, image_size=flags.image_size)
    prototypes = getattr(loaded.model, "prototype_head", None)
    if prototypes is not None and prototypes.bottleneck_dim != loaded.model.num_features:
        raise UserError(
            f"{flags.model} is a DINO model: its κ lives on its bottleneck, which an export cannot part from it; "
            "a fitted κ needs another backbone"
        )
    if flags.image_size is not None:  # what the export will tell timm to give it
        size = {"input_size": (3, flags.image_size, flags.image_size), "pool_size": None}
        loaded.model.pretrained_cfg = loaded.model.default_cfg = {**loaded.model.pretrained_cfg, **size}
    fit_to, apart = _open(flags)
    folder = Path(flags.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_results(folder / "report")  # of another fit
    except OSError as error:
        raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
    fitted = _fit(flags, loaded, fit_to)
    metrics: dict[str, Any] = {f"fit_kappa.{k}": v for k, v in fit_figures(fitted).items()}
    # Before the report is made: the fit is what took the time.
    _export(folder, fitted, loaded, metrics, flags, command)
    where = (
        ""
        if apart is None
        else f"on {min(len(apart), flags.report_images)} images of the split {apart.split!r}"
    )
    if flags.report:
        report = folder / "report"
        metrics |= write_report(
            fitted,
            loaded,
            fit_to,
            apart,
            report,
            command=command,
            limit=flags.report_images,
            seed=flags.seed,
            workers=flags.data.workers,
        )
        _export(folder, fitted, loaded, metrics, flags, command)
    print(summary(metrics, where))
    if flags.report:
        print(f"\nreport: {folder / 'report' / 'index.html'}")
    print(f"export: {folder}, loaded by timm.create_model('local-dir:{folder}', pretrained=True)")


def _check(flags: Arguments) -> None:
    for name in ("model", "output_dir"):
        if getattr(flags, name) is None:
            raise UserError(f"fit-kappa needs --{name.replace('_', '-')} (see --help)")
    least = {
        "views": 2,
        "limit": 1,
        "image_size": 1,
        "kappa_hidden": 1,
        "steps": 1,
        "report_images": 10,
        "seed": 0,
    }
    for name, low in least.items():
        value = getattr(flags, name)
        if value is not None and value < low:
            raise UserError(f"--{name.replace('_', '-')} must be at least {low}, not {value}")
    if flags.seed >= 2**32:
        raise UserError(f"--seed must be below 2**32, not {flags.seed}")
    if not 0 < flags.lr < 1:
        raise UserError(f"--lr must be between 0 and 1, not {flags.lr}")


def _open(flags: Arguments) -> tuple[ImageTable, ImageTable | None]:
    data = flags.data
    columns = {"image_column": data.image_column, "label_column": data.label_column}
    train, test = open_tables(data.path, train_split=data.train_split, split=data.split, **columns)
    fit_to, apart = split_tables(train, test, flags.seed)
    return (fit_to if flags.limit is None else sample(fit_to, flags.limit, flags.seed)), apart


def _fit(flags: Arguments, loaded: Loaded, images: ImageTable) -> Fitted:
    return fit_kappa_with_figures(
        loaded.model.to(take_device()),
        images,
        views=flags.views,
        image_size=loaded.image_size,
        kappa_map=flags.kappa_map,
        kappa_hidden=flags.kappa_hidden,
        steps=flags.steps,
        lr=flags.lr,
        exact=flags.exact,
        seed=flags.seed,
        workers=flags.data.workers,
    )


def _export(
    folder: Path, fitted: Fitted, loaded: Loaded, metrics: dict[str, Any], flags: Arguments, command: str
) -> None:
    plain = {key: value for key, value in metrics.items() if isinstance(value, (int, float, type(None)))}
    card = render_card(fitted, loaded, metrics, flags.data.path, command)
    export_model(fitted.model, folder, metrics=plain, heads=loaded.heads, readme=card)
