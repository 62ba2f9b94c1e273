"""From a recipe to what is trained: views, network, method and optimizer, with a clear word when they do not fit."""

from __future__ import annotations

import dataclasses
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from vissl_zoo.cpu.small_maps import use_small_maps
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.methods import Method, create_method
from vissl_zoo.models import create_model
from vissl_zoo.networks.batch_norm import synchronize_batch_norm
from vissl_zoo.recipes import Recipe
from vissl_zoo.views import ViewPipeline


def build_views(recipe: Recipe) -> ViewPipeline:
    """The random views of the recipe."""
    options = {**dataclasses.asdict(recipe.views), "seed": recipe.seed, "dtype": getattr(torch, recipe.dtype)}
    try:
        return ViewPipeline(recipe.image_size, channels_last=True, **options)  # as the method is
    except ValueError as error:
        option, _, problem = str(error).partition(" ")
        raise UserError(f"--views.{option.replace('_', '-')} {problem}") from error


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
        raise UserError(f"--model {name}: {first_line(error)}") from error
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
    if recipe.views.low and recipe.views.low_size:
        sizes["views.low-size"] = recipe.views.low_size
    model.eval()
    for flag, size in sizes.items():
        try:
            with torch.inference_mode():
                model(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f"--model {recipe.model} cannot take images of --{flag} {size}: {first_line(error)}"
            ) from error
    model.train()


def build_method(recipe: Recipe, model: nn.Module, device: torch.device) -> Method:
    """The recipe's method around its model, on this process's device."""
    try:
        method = create_method(recipe.method.name, model, recipe.method)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--method: {first_line(error)}") from error
    if recipe.sync_batch_norm:
        synchronize_batch_norm(method, device)  # in place, as a method is no batch norm itself
    # channels_last: convolutions run up to three times as fast on a CPU, and in half precision on a GPU.
    use_small_maps(method)
    method = method.to(memory_format=torch.channels_last).to(device, getattr(torch, recipe.dtype)).train()
    if recipe.compile == "on":
        compile_backbone(method.model)
    return method


def compile_backbone(model: nn.Module) -> None:
    """Let torch compile the forward pass of `model` in place, under the same parameter names."""
    compiled = torch.compile(model.forward)

    def forward(x: Tensor) -> Tensor:
        try:
            return compiled(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no C++ compiler, an operation that it does not know, …
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in lines if not line.endswith(":")), type(error).__name__)
            raise UserError(f"--compile on: {reason}") from error  # torch names its backend in the first line

    model.forward = forward


def restore_backbone(model: nn.Module) -> None:
    """Undo `compile_backbone`: evaluation and export see other shapes, and would compile again."""
    vars(model).pop("forward", None)


def build_optimizer(recipe: Recipe, method: Method, precision: str) -> torch.optim.SGD:
    """SGD with momentum (App. B); with --constant-predictor-lr the predictor is a group of its own.

    In float16 it is not fused: a fused step skips overflowed gradients inside the kernel, where nobody else
    learns of it, and the EMA and the centre would move without the weights.
    """
    constant = method.constant_lr_parameters() if recipe.constant_predictor_lr else []
    apart = {id(p) for p in constant}
    scheduled = [p for p in method.parameters() if p.requires_grad and id(p) not in apart]
    groups = [{"params": scheduled, "constant_lr": False}]
    if constant:
        groups.append({"params": constant, "constant_lr": True})
    fused = precision != "fp16" and scheduled[0].device.type in ("cpu", "cuda")
    return torch.optim.SGD(
        groups,
        lr=0.0,  # of each step: `set_learning_rate`
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=fused or None,  # None: foreach where that pays
    )
