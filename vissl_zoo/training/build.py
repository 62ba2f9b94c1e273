"""From a recipe to the network that it trains, with a clear word when the two do not fit."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from vissl_zoo.errors import UserError
from vissl_zoo.models import create_model
from vissl_zoo.recipes.base import Recipe


def build_model(recipe: Recipe) -> nn.Module:
    """The recipe's timm model, without a classifier and with its κ head, for images of the recipe's size.

    Raises:
        UserError: the model or backbone is unknown, belongs to another method, or cannot take such images.
    """
    name, method = recipe.model, recipe.method.name
    if name != method and not name.startswith(f"{method}_"):
        own = ", ".join(m for m in timm.list_models(f"{method}*") if m.startswith(method))
        known = "is not a model of" if timm.is_model(name) else "is unknown to timm; the recipe trains"
        raise UserError(f"--model {name} {known} {method}: choose {own}, or --model {method} --backbone NAME")
    arguments: dict[str, Any] = {"num_classes": 0, **recipe.method.model_args()}
    if name == method and recipe.backbone is not None:
        arguments["backbone"] = recipe.backbone
    try:
        model = _create(name, recipe.image_size, arguments)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise UserError(f"--model {name}: {str(error).splitlines()[0]}") from error
    _try_sizes(model, recipe)
    return model


def _create(name: str, image_size: int, arguments: dict[str, Any]) -> nn.Module:
    """Create the model; one with position embeddings gets a grid for our size, and resamples it for others."""
    cfg = get_pretrained_cfg(arguments.get("backbone", name))
    if cfg is None or not cfg.fixed_input_size:
        return create_model(name, **arguments)
    sized = {**arguments, "img_size": image_size}
    try:
        return create_model(name, **sized, dynamic_img_size=True)
    except TypeError:  # Swin and others know no dynamic size: standard views only
        return create_model(name, **sized)


def _try_sizes(model: nn.Module, recipe: Recipe) -> None:
    """Run one blank image of each size, since backbones refuse sizes in many ways and late."""
    sizes = {"image-size": recipe.image_size}
    if recipe.views.low:
        sizes["views.low-size"] = recipe.views.low_size
    model.eval()
    for flag, size in sizes.items():
        try:
            with torch.inference_mode():
                model(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError, TypeError, OverflowError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"--model {recipe.model} cannot take images of --{flag} {size}: {reason}"
            ) from error
    model.train()
