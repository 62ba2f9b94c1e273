"""The model card: what the model is, what κ means, how it was made and how well it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from torch import nn

# Keys of a metrics dict that a reader of the card asks for, with their meaning.
FIGURES = {
    "knn_top1": "kNN top-1 accuracy",
    "knn_top1_untrained": "kNN top-1 accuracy before training",
    "auroc_kappa_knn": "AUROC of κ for kNN correctness",
    "spearman_uncertainty_ambiguity": "Spearman of uncertainty with the known ambiguity",
}


def render_card(
    model: nn.Module, method: str, metrics: Mapping[str, Any] | None, image_size: int, data: str, command: str
) -> str:
    """The README.md of an export, with the metadata block that the Hub reads.

    Args:
        model: the exported model.
        method: its method's name as papers write it.
        metrics: what was measured; figures that are None are left out.
        image_size: side of the images it was trained on, in pixels.
        data: the data set's name or path.
        command: the command that made it.
    """
    figures = {
        meaning: f"{metrics[key]:.3f}"
        for key, meaning in FIGURES.items()
        if metrics and metrics.get(key) is not None
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vissl_zoo.hub", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return environment.get_template("card.md.jinja").render(
        architecture=model.pretrained_cfg["architecture"],
        backbone=model._model_args.get("backbone"),
        method=method,
        width=model.kappa_head.in_features,
        dim=model.kappa_head.latent_dim,
        categorical=getattr(model, "prototype_head", None) is not None,
        figures=figures,
        image_size=image_size,
        data=data,
        command=command,
    )
