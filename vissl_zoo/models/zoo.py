"""The registered names, each of them an entrypoint of timm: a method on a backbone, or any backbone with κ.

They stand in this one module, which timm lists as `zoo`. A module named after a backbone would join timm's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from timm.models import generate_default_cfgs, register_model
from torch import nn

from vissl_zoo.models.backbones import backbone_cfg, unknown_name
from vissl_zoo.models.build import build_model
from vissl_zoo.models.pretrained_cfg import with_shipped
from vissl_zoo.weights import shipped

BACKBONES = {
    "resnet18": "ResNet-18: embedding (B, 512)",
    "resnet18_cifar": "ResNet-18 with a 3×3 stride-1 stem for 32-pixel images: embedding (B, 512)",
    "resnet50": "ResNet-50: embedding (B, 2048)",
    "convnext_tiny": "ConvNeXt-T: embedding (B, 768)",
    "vit_small_patch16_224": "ViT-S/16: embedding (B, 384)",
}
"""The backbones that have a name of their own with each method; any other is an argument of the method's name."""

_DEFAULT_BACKBONE = "resnet18"
_METHODS: list[str] = []
_ENTRYPOINTS: dict[str, Callable[..., nn.Module]] = {}
default_cfgs: dict[str, Any] = {}  # timm looks for it in an entrypoint's module


def register_method(name: str, title: str, head_defaults: Mapping[str, Any]) -> None:
    """Register `name`, which takes any `backbone`, and `name_BACKBONE` for each of `BACKBONES`.

    Args:
        name: the method's name.
        title: the method as papers write it, for the docstrings.
        head_defaults: defaults of the heads' arguments, see `build_model`.
    """
    if name not in _METHODS:
        _METHODS.append(name)
    _register_generic(name, f"{title} on any timm backbone, named by `backbone`.", head_defaults)
    for backbone, about in BACKBONES.items():
        _register_named(f"{name}_{backbone}", backbone, f"{title} on {about}.", head_defaults)


def _register_generic(
    name: str, about: str, head_defaults: Mapping[str, Any], own_statistics: bool = False
) -> None:
    def entrypoint(pretrained: bool = False, backbone: str | None = None, **kwargs):
        row = shipped().get(f"{name}.{kwargs.get('pretrained_cfg')}")
        chosen: str = backbone or (row.model_args["backbone"] if row else _DEFAULT_BACKBONE)
        if own_statistics and not kwargs.get("pretrained_cfg"):
            kwargs["pretrained_cfg"] = backbone_cfg(chosen, own_statistics=True)
        return build_model(name, chosen, pretrained, True, head_defaults, **kwargs)

    _register(name, entrypoint, about, backbone_cfg(_DEFAULT_BACKBONE, own_statistics))


def _register_named(name: str, backbone: str, about: str, head_defaults: Mapping[str, Any]) -> None:
    def entrypoint(pretrained: bool = False, **kwargs):
        return build_model(name, backbone, pretrained, False, head_defaults, **kwargs)

    _register(name, entrypoint, about, backbone_cfg(backbone))


def _register(name: str, entrypoint: Callable[..., nn.Module], about: str, cfg: dict[str, Any]) -> None:
    """Name the entrypoint, and give it to timm with its configuration, once for each of its shipped tags."""
    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__doc__ = about
    globals()[name] = _ENTRYPOINTS[name] = entrypoint
    tagged: dict[str, Any] = with_shipped({name: cfg})
    default_cfgs.update(generate_default_cfgs(tagged))
    register_model(entrypoint)


def entrypoints() -> dict[str, Callable[..., nn.Module]]:
    """Every registered entrypoint of the zoo by name."""
    return dict(_ENTRYPOINTS)


def method_names() -> tuple[str, ...]:
    """The methods, each also the name of its generic entrypoint. `kappa` is generic too, but no method."""
    return tuple(_METHODS)


def backbone_of(architecture: str, model_args: Mapping[str, Any]) -> str:
    """The backbone's name, with its tag if any, of a registered architecture built with `model_args`.

    Raises:
        ValueError: no architecture of the zoo.
    """
    if architecture not in _ENTRYPOINTS:
        raise ValueError(f"{architecture} is no architecture of the zoo")
    if architecture in (*_METHODS, "kappa"):
        return model_args.get("backbone") or _DEFAULT_BACKBONE
    return next(b for m in _METHODS for b in BACKBONES if architecture == f"{m}_{b}")


def create_model(model_name: str, pretrained: bool = False, **kwargs) -> nn.Module:
    """Create a model as `timm.create_model` does, with help for a misspelled name.

    Args:
        model_name: a name of the zoo or of timm, "local-dir:FOLDER" or "hf-hub:ORG/NAME@REVISION".
        pretrained: load its weights.
        **kwargs: everything that `timm.create_model` takes, and for the zoo's models `kappa_head`, `latent_dim`,
            `kappa_map` and `kappa_hidden` (DINO also `prototypes`, `bottleneck_dim` and `teacher_temperature`; the
            generic names `backbone`).

    Raises:
        ValueError: no such model; the message names close matches.
    """
    if not any(c in model_name for c in ":/\\") and not timm.is_model(model_name):
        raise ValueError(unknown_name(model_name, timm.list_models()))
    return timm.create_model(model_name, pretrained=pretrained, **kwargs)


def pool_size(model: Any, image_size: int) -> tuple[int, int] | None:
    """Height and width of the last feature map for square images of `image_size`; None for tokens.

    This is the `pool_size` of timm's configurations, for one that is to tell of another size than timm's own.
    """
    training, parameter = model.training, next(model.parameters())
    with torch.inference_mode():
        image = parameter.new_zeros(1, model.pretrained_cfg["input_size"][0], image_size, image_size)
        features = model.eval().forward_features(image)
    model.train(training)
    return tuple(features.shape[-2:]) if features.ndim == 4 else None


# The name under which a backbone with a κ head of its own is exported. It keeps the statistics of the images that
# it was made with, unlike the methods' names, whose training normalises with ImageNet's.
_register_generic("kappa", "Any timm backbone, named by `backbone`, with a κ head beside it.", {}, True)
