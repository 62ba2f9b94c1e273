"""The model card: what the model is, what κ means, how it was made and how well it did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCardData
from torch import nn

from vissl_zoo.hub import figures
from vissl_zoo.hub.figures import FIGURES
from vissl_zoo.hub.record import Record
from vissl_zoo.models import backbone_of

__all__ = ["FIGURES", "Place", "render_card", "render_record"]

LOCAL = "local-dir:PATH/TO/THIS/FOLDER"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


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
    model: nn.Module, method: str, metrics: Mapping[str, Any] | None, image_size: int, data: str, command: str
) -> str:
    """The README.md of an export, with the metadata block that the Hub reads.

    Args:
        model: the exported model.
        method: its method's name as papers write it.
        metrics: what the training measured at its end; figures that are None are left out.
        image_size: side of the images it was trained on, in pixels.
        data: the data set's name or path.
        command: the command that made it.
    """
    return render_record(model, Record(method, data, image_size, command), metrics=metrics)


def render_record(
    model: nn.Module,
    record: Record,
    *,
    metrics: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    place: Place | None = None,
    dataset: str | None = None,
    license: str = "apache-2.0",
) -> str:
    """The model card of a model, wherever it is found.

    Args:
        model: the model, with its κ head if it has one.
        record: how it came to be.
        metrics: what its training measured at its end; not shown beside an `evaluation`.
        evaluation: of `vissl-zoo evaluate`.
        place: where the reader finds it; None for the folder that the card lies in.
        dataset: the data set's name on the Hub; None takes it from the record if that has its form.
        license: of the weights, as the Hub names it.
    """
    place = place or Place()
    if (
        dataset is None
        and record.data
        and _HUB_NAME.fullmatch(record.data)
        and not Path(record.data).exists()
    ):
        dataset = record.data
    architecture, args = _identity(model)
    head = model.kappa_head
    evaluated = evaluation or {}
    columns, areas = figures.auroc_table(evaluated)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vissl_zoo.hub", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.get_template("card.md.jinja").render(
        metadata=_metadata(record, architecture, evaluation, place, dataset, license).to_yaml(),
        architecture=architecture,
        backbone=args.get("backbone"),
        timm_backbone=backbone_of(architecture, args).split(".")[0],
        record=record,
        data=record.data and figures.data_name(record.data),
        place=place,
        size=model.pretrained_cfg["input_size"][-1],
        channels=model.pretrained_cfg["input_size"][0],
        width=model.num_features if head is None else head.in_features,
        classes=model.num_classes,
        dim=head and head.latent_dim,
        categorical=getattr(model, "prototype_head", None) is not None,
        report=[] if evaluation else figures.report_rows(metrics),
        evaluation=evaluation and {**evaluation, "data": figures.data_name(evaluation["data"])},
        accuracies=figures.accuracy_rows(evaluated),
        columns=columns,
        areas=areas,
        augmentations=figures.augmentation_rows(evaluated),
        shown_license=license,
    )


def _identity(model: nn.Module) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments as the model's export has them."""
    architecture = model.pretrained_cfg["architecture"]
    args = dict(model._model_args)
    try:
        backbone_of(architecture, args)
    except ValueError:  # a timm model that was given a κ head
        return "kappa", {**args, "backbone": architecture}
    return architecture, args


def _metadata(
    record: Record,
    architecture: str,
    evaluation: Mapping[str, Any] | None,
    place: Place,
    dataset: str | None,
    license: str,
) -> ModelCardData:
    """The block at the top, by huggingface_hub's own class, so that the Hub reads it back."""
    results = figures.eval_results(evaluation, dataset) if evaluation else None
    name = place.repo_id.split("/")[1] if place.repo_id else architecture
    return ModelCardData(
        license=license,
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["image-feature-extraction", "timm", "self-supervised-learning", "uncertainty", "vissl_zoo"],
        datasets=[dataset] if dataset else None,
        model_name=name if results else None,
        eval_results=results or None,
        vissl_zoo=record.to_dict(),
    )
