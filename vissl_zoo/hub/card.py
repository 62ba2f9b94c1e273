"""The model card: what the model is, what κ means, how it was made and how well it did.

The card's metadata carry a `Record`, so method, data and command travel from the training to `vissl-zoo publish`
without a file of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import jinja2
from huggingface_hub import ModelCard, ModelCardData
from torch import nn

from vissl_zoo.hub import card_figures
from vissl_zoo.hub.export import CONFIG, README, identity, read_json
from vissl_zoo.models import backbone_of

LOCAL = "local-dir:PATH/TO/THIS/FOLDER"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Record:
    """How a model came to be. None is unknown, and left out of the card.

    Attributes:
        method: as papers write it.
        data: name or path of the images.
        image_size: side of the training images in pixels.
        command: the command line that made it.
        note: a sentence that stands beside every figure, such as how the images were compressed.
    """

    method: str
    data: str | None = None
    image_size: int | None = None
    command: str | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """Read `to_dict`'s result; keys of later versions are ignored."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def read_record(export: Path) -> Record:
    """The record in an export's model card; where there is none, the architecture's name alone.

    Raises:
        UserError: the export's config.json is unreadable.
    """
    readme = export / README
    if readme.is_file():
        card = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True)
        kept = card.data.get("vissl_zoo")
        if isinstance(kept, dict) and kept.get("method"):
            return Record.from_dict(kept)
    return Record(method=str(read_json(export / CONFIG, "the export's").get("architecture")))


@dataclass(frozen=True)
class Place:
    """Where a reader of the card finds the model.

    Attributes:
        name: what `timm.create_model` takes once vissl_zoo is imported.
        timm_name: what it takes without; None where timm has no such backbone or the place no such face.
        repo_id: the Hub repository that holds it; None for a folder and for what the package ships.
        revision: the repository's branch with the whole model.
        shipped: whether the package itself brings the weights.
    """

    name: str = LOCAL
    timm_name: str | None = None
    repo_id: str | None = None
    revision: str = "full"
    shipped: bool = False


def render_card(
    model: nn.Module,
    record: Record,
    *,
    metrics: Mapping[str, Any] | None = None,
    place: Place | None = None,
    dataset: str | None = None,
    license: str = "apache-2.0",
) -> str:
    """The README.md of a model, wherever it is found, with the metadata block that the Hub reads.

    Args:
        model: the model, with its κ head if it has one.
        record: how it came to be.
        metrics: what a metrics.json says, of its training's report or of `vissl-zoo evaluate`.
        place: where the reader finds it; None for the folder that the card lies in.
        dataset: the data set's name on the Hub; None takes it from the record if that has its form.
        license: of the weights, as the Hub names it.
    """
    place, metrics = place or Place(), metrics or {}
    if (
        dataset is None
        and record.data
        and _HUB_NAME.fullmatch(record.data)
        and not Path(record.data).exists()
    ):
        dataset = record.data
    architecture, args = identity(model)
    known = cast(Any, model)  # to a type checker, every attribute of a module is a tensor or a module
    head, (channels, _, size) = known.kappa_head, known.pretrained_cfg["input_size"]
    columns, areas = card_figures.auroc_table(metrics)
    measured = metrics.get("data") or record.data
    results = card_figures.eval_results(metrics, measured, dataset) if measured else []
    metadata = ModelCardData(
        license=license,
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["image-feature-extraction", "timm", "self-supervised-learning", "uncertainty", "vissl_zoo"],
        datasets=[dataset] if dataset else None,
        model_name=(place.repo_id.split("/")[1] if place.repo_id else architecture) if results else None,
        eval_results=results or None,
        vissl_zoo=record.to_dict(),
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vissl_zoo.hub", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.get_template("card.md.jinja").render(
        metadata=metadata.to_yaml(),
        architecture=architecture,
        backbone=args.get("backbone"),
        timm_backbone=backbone_of(architecture, args).split(".")[0],
        record=record,
        data=record.data and card_figures.data_name(record.data),
        place=place,
        size=size,
        channels=channels,
        width=known.num_features if head is None else head.in_features,
        classes=known.num_classes,
        dim=head and head.latent_dim,
        categorical=getattr(model, "prototype_head", None) is not None,
        measured=measured and card_figures.data_name(measured),
        metrics=metrics,
        rows=card_figures.figure_rows(metrics),
        columns=columns,
        areas=areas,
        augmentations=card_figures.augmentation_rows(metrics),
    )
