"""Recipes of BYOL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vissl_zoo.recipes.base import MethodOptions, NamedRecipe, Recipe
from vissl_zoo.recipes.common import CIFAR10, CIFAR10_VIEWS, IMAGENET100, MULTI_CROP, NOT_MEASURED


@dataclass(frozen=True)
class BYOLOptions(MethodOptions):
    """BYOL's own options."""

    name = "byol"
    model_options = ("latent_dim", "kappa_map")

    latent_dim: int = 2048
    """d, the dimension of the latent space."""
    kappa_map: Literal["softplus", "exp"] = "softplus"
    """How the κ head's output becomes positive."""
    ema_momentum: float = 0.996
    """Momentum of the target network at the start; it rises to 1 along a cosine."""
    hidden: int = 512
    """Width of the hidden layer of the projector and of the predictor."""
    output_norm: bool = False
    """Batch norm, without scale and shift, on the projector's output."""
    kappa_weight: float | None = None
    """λ, the weight of the κ head's own loss, which never reaches the trunk; None: 30 for softplus, 1 for exp."""


RECIPES = (
    NamedRecipe(
        "byol_resnet18_cifar10",
        Recipe(
            method=BYOLOptions(),
            model="byol_resnet18",
            data=CIFAR10,
            views=CIFAR10_VIEWS,
            image_size=64,
            batch_size=256,
            lr=0.1,
            lr_batch_size=256,
            warmup_epochs=10,
            weight_decay=5e-4,
        ),
        about="BYOL on CIFAR-10: 64 pixels, two views, ImageNet's stem, SGD.",
        cost="about 200 epochs of ResNet-18 at 64 pixels; " + NOT_MEASURED,
        expected=NOT_MEASURED,
    ),
    NamedRecipe(
        "byol_resnet18_imagenet100",
        Recipe(
            method=BYOLOptions(),
            model="byol_resnet18",
            data=IMAGENET100,
            views=MULTI_CROP,
            image_size=224,
            lr=0.1,
            lr_batch_size=256,
            warmup_epochs=10,
        ),
        about="BYOL on ImageNet-100 with the views of the paper (App. B); the paper trains no BYOL.",
        cost="four V100 for the paper's methods of this size; " + NOT_MEASURED,
        expected=NOT_MEASURED,
    ),
)
