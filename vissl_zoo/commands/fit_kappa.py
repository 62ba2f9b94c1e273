"""`vissl-zoo fit-kappa --model M --data.path P --output-dir DIR`: κ for any timm backbone, from unlabelled images."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vissl_zoo.cli import Count, DataFlags, Fraction, OptionalCount, Required, Seed, Within, parse_flags
from vissl_zoo.errors import UserError

if TYPE_CHECKING:
    from vissl_zoo.inference import Loaded


@dataclass(frozen=True)
class Options:
    """What to fit, to what, and where the export goes."""

    model: Required = ""
    """A name of timm or of the zoo, a run or export folder, or hf-hub:ORG/NAME."""
    data: DataFlags = field(default_factory=DataFlags)
    output_dir: Required = ""
    """Where the export (config.json, model.safetensors, README.md) and its report/ go."""
    random_init: bool = False
    """Leave the backbone's weights random, for a floor to compare with."""
    target: Literal["clusters", "neighbours", "views"] = "clusters"
    """What κ is fitted to: how often an image shares a cluster with its neighbours, how many neighbours its views keep,
    or how near its views lie."""
    views: Annotated[int, Within(2)] = 8
    """Augmented views of each image, 2 or more; the time is proportional to them."""
    limit: OptionalCount = None
    """Images to fit to at most, drawn by the seed; by default all."""
    image_size: OptionalCount = None
    """Side of the views in pixels; by default what the model was trained at."""
    kappa_map: Literal["exp", "softplus"] = "exp"
    """How the κ head's output becomes positive."""
    kappa_hidden: OptionalCount = None
    """Width of the κ head; by default the embedding's, 256 at most."""
    steps: Count = 600
    """Steps of the fit; the best on held-out images is kept."""
    lr: Fraction = 1e-3
    """Learning rate of the fit."""
    exact: bool = False
    """Decode images in full and run the backbone in plain float32."""
    report_images: Annotated[int, Within(10)] = 2000
    """Images measured on at most, for the report; neighbours are found among four times as many."""
    report: bool = True
    """Measure and draw the result; without, fit and export only."""
    seed: Seed = 0
    """Of every random choice."""


FIT_FLAGS = ("target", "views", "kappa_map", "kappa_hidden", "steps", "lr", "exact", "seed")


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about the model, the data or a flag."""
    about = "Fit a κ head to unlabelled images, by how well each of them is recognised; the backbone stays as it is."
    flags = parse_flags(Options, Options(), arguments, "vissl-zoo fit-kappa", about)
    from vissl_zoo.cpu.device import take_device
    from vissl_zoo.evaluation.evaluation_run import clear_results
    from vissl_zoo.hub import export_model, render_card
    from vissl_zoo.inference import open_tables
    from vissl_zoo.uncertainty import fit_kappa
    from vissl_zoo.uncertainty.worth import card_record, fit_figures, measure, sample, split_tables, summary

    command = shlex.join(["vissl-zoo", "fit-kappa", *arguments])
    loaded, data = _load(flags), flags.data
    columns = {"image_column": data.image_column, "label_column": data.label_column}
    train, test = open_tables(data.path, train_split=data.train_split, split=data.split, **columns)
    fit_to, apart = split_tables(train, test, flags.seed)
    fit_to = fit_to if flags.limit is None else sample(fit_to, flags.limit, flags.seed)
    folder = Path(flags.output_dir)
    report = folder / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_results(report)  # of another fit
    except OSError as error:
        raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
    options = {name: getattr(flags, name) for name in FIT_FLAGS}
    model: Any = loaded.model.to(take_device())
    model = fit_kappa(model, fit_to, image_size=loaded.image_size, workers=data.workers, **options)
    record = card_record(model.kappa_fit, loaded, data.path, command)
    metrics = {"fit_kappa": fit_figures(model)}

    def export() -> None:
        card = render_card(model, record, metrics=metrics)
        export_model(model, folder, metrics=metrics, heads=loaded.heads, readme=card)

    export()  # before the report is made: the fit is what took the time
    if flags.report:
        options = {"limit": flags.report_images, "seed": flags.seed, "workers": data.workers}
        metrics = measure(model, loaded, fit_to, apart, report, command=command, **options)
        export()
    where = ""
    if apart is not None:
        where = f"on {min(len(apart), flags.report_images)} images of the split {apart.split!r}"
    print(summary(metrics, where))
    if flags.report:
        print(f"\nreport: {report / 'index.html'}")
    print(f"export: {folder}, loaded by timm.create_model('local-dir:{folder}', pretrained=True)")


def _load(flags: Options) -> Loaded:
    from vissl_zoo.inference import load_model
    from vissl_zoo.models import pool_size
    from vissl_zoo.uncertainty.fitted_kappa import refuse_dino

    loaded = load_model(flags.model, random_init=flags.random_init, image_size=flags.image_size)
    model: Any = loaded.model
    refuse_dino(model)
    if flags.image_size is not None:  # what the export will tell timm to give it
        pooled = pool_size(model, flags.image_size)
        size = {"input_size": (3, flags.image_size, flags.image_size), "pool_size": pooled}
        model.pretrained_cfg = model.default_cfg = {**model.pretrained_cfg, **size}
    return loaded
