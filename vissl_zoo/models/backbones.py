"""The backbones: timm's entrypoints by name, and the one that timm lacks."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    ResNet,
    build_model_with_cfg,
    get_pretrained_cfg,
    is_model,
    list_models,
    model_entrypoint,
)
from timm.models.resnet import BasicBlock
from torch import nn

from vissl_zoo.models.representation import device_and_dtype


class CifarResNet(ResNet):
    """timm's ResNet with the stem for 32-pixel images: a 3×3 stride-1 `conv1` and no max-pooling.

    With the standard stem a 32 × 32 image would leave the trunk as a single position. All reductions are a
    quarter of the standard ones (He et al. 2016, section 4.2; Chen et al. 2020, appendix B.9).
    """

    def __init__(self, *args, in_chans: int = 3, **kwargs):
        super().__init__(*args, in_chans=in_chans, **kwargs)
        width = int(self.feature_info[0]["num_chs"])
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False, **device_and_dtype(self))
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for info in self.feature_info:
            info["reduction"] = max(int(info["reduction"]) // 4, 1)


def resnet18_cifar(pretrained: bool = False, **kwargs) -> CifarResNet:
    """Build a ResNet-18 with the CIFAR stem; a timm entrypoint in all but registration."""
    model_args = {"block": BasicBlock, "layers": (2, 2, 2, 2), **kwargs}
    return build_model_with_cfg(CifarResNet, "resnet18_cifar", pretrained, **model_args)


_CIFAR_CFG = {
    "input_size": (3, 32, 32),
    "pool_size": (4, 4),
    "crop_pct": 1.0,
    "first_conv": "conv1",
    "classifier": "fc",
}
# What a configuration without weights keeps of timm's: facts about the architecture.
_ARCHITECTURE_KEYS = (
    "input_size",
    "min_input_size",
    "fixed_input_size",
    "pool_size",
    "first_conv",
    "classifier",
)
_STATISTICS_KEYS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


def backbone_entrypoint(backbone: str) -> Callable[..., nn.Module]:
    """Return the function that builds `backbone`: timm's own, or `resnet18_cifar`.

    Raises:
        ValueError: timm has no such model; the message names close matches.
    """
    if backbone == "resnet18_cifar":
        return resnet18_cifar
    if not is_model(backbone) or _is_own(backbone):
        known = [n for n in list_models() if not _is_own(n)]
        raise ValueError(unknown_name(backbone, [*known, "resnet18_cifar"], kind="backbone"))
    return model_entrypoint(backbone)


def _is_own(name: str) -> bool:
    return model_entrypoint(name).__module__.startswith(f"{__package__}.")


def backbone_cfg(backbone: str, own_statistics: bool = False, **overrides: Any) -> dict[str, Any]:
    """Return the pretrained configuration of a self-supervised model on `backbone`, in timm's form.

    Input size, stem and classifier names are timm's (those of a tag when one is given); there is no classifier.
    The statistics are ImageNet's for every backbone, because the view pipeline normalises with them; with
    `own_statistics` they and the crop are the backbone's.
    """
    keys = _ARCHITECTURE_KEYS + (_STATISTICS_KEYS if own_statistics else ())
    if backbone == "resnet18_cifar":
        cfg = dict(_CIFAR_CFG)
    else:
        backbone_entrypoint(backbone)  # refuses unknown names
        timm_cfg = get_pretrained_cfg(backbone)
        cfg = {k: getattr(timm_cfg, k) for k in keys} if timm_cfg else {}
    statistics = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    return {**statistics, **cfg, "num_classes": 0, **overrides}


def unknown_name(name: str, known: list[str], kind: str = "model") -> str:
    """Say that `name` is unknown and which known names are spelled like it."""
    close = difflib.get_close_matches(name.split(".")[0], known, n=5)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    return f"unknown {kind} {name!r}{hint}"
