"""Recipes of DINO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vissl_zoo.recipes.base import MethodOptions, NamedRecipe, Recipe
from vissl_zoo.recipes.common import CIFAR10, CIFAR10_VIEWS, IMAGENET100, MULTI_CROP, NOT_MEASURED


@dataclass(frozen=True)
class DINOOptions(MethodOptions):
    """DINO's own options."""

    name = "dino"
    model_options = ("prototypes", "bottleneck_dim", "teacher_temperature", "kappa_map")

    prototypes: int = 2048
    """K, the number of categories of the latent."""
    bottleneck_dim: int = 256
    """Dimension of the L2-normalised bottleneck before the prototypes."""
    teacher_temperature: float = 0.04
    """τ_φ, which sharpens the teacher."""
    kappa_map: Literal["softplus", "exp"] = "softplus"
    """How the κ head's output becomes positive."""
    teacher: Literal["shared", "ema"] = "shared"
    """The teacher: the student itself behind a stop-gradient, as in the paper, or its moving average."""
    student_temperature: float = 0.1
    """τ_θ of the student."""
    center_momentum: float = 0.9
    """Momentum of the centre."""
    ema_momentum: float = 0.996
    """Momentum of the EMA teacher at the start; it rises to 1 along a cosine."""
    kappa_weight: float | None = None
    """λ, the weight of the κ head's own loss, which never reaches the trunk; None: 30 for softplus, 1 for exp."""


RECIPES = (
    NamedRecipe(
        "dino_resnet18_cifar10",
        Recipe(
            method=DINOOptions(),
            model="dino_resnet18",
            data=CIFAR10,
            views=CIFAR10_VIEWS,
            image_size=64,
            batch_size=64,
            lr=0.03,
            lr_batch_size=64,
        ),
        about="DINO on CIFAR-10 with the paper's temperatures, batch and shared teacher, at 64 pixels.",
        cost="about 200 epochs of ResNet-18 at 64 pixels; " + NOT_MEASURED,
        expected="kNN top-1 0.34, AUROC of κ 0.56 after 12 epochs at 32 pixels, of CIFAR-10 as JPEG of quality 75; "
        "200 epochs at 64 pixels: " + NOT_MEASURED,
    ),
    NamedRecipe(
        "dino_resnet18_imagenet100",
        Recipe(
            method=DINOOptions(),
            model="dino_resnet18",
            data=IMAGENET100,
            views=MULTI_CROP,
            image_size=224,
            batch_size=64,
            lr=0.03,
            lr_batch_size=64,
        ),
        about="DINO as the paper trains it on ImageNet-100 (App. B): no momentum teacher.",
        cost="four V100 in the paper",
        expected="the paper's Table 9: linear top-1 76.30 at 200 epochs; " + NOT_MEASURED,
    ),
)
