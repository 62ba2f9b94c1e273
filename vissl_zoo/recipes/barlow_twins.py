"""Recipes of Barlow Twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vissl_zoo.recipes.base import MethodOptions, NamedRecipe, Recipe
from vissl_zoo.recipes.common import CIFAR10, CIFAR10_VIEWS, IMAGENET100, MULTI_CROP, NOT_MEASURED


@dataclass(frozen=True)
class BarlowTwinsOptions(MethodOptions):
    """Barlow Twins's own options."""

    name = "barlow_twins"
    model_options = ("latent_dim", "kappa_map")

    latent_dim: int = 2048
    """d, the dimension of the latent space."""
    kappa_map: Literal["softplus", "exp"] = "softplus"
    """How the κ head's output becomes positive."""
    redundancy_weight: float = 0.0051
    """λ of the off-diagonal elements."""
    scale: float = 0.024
    """Factor on the whole loss."""
    hidden: int = 512
    """Width of the hidden layer of the projector."""
    kappa_weight: float | None = None
    """λ, the weight of the κ head's own loss, which never reaches the trunk; None: 30 for softplus, 1 for exp."""


RECIPES = (
    NamedRecipe(
        "barlow_twins_resnet18_cifar10",
        Recipe(
            method=BarlowTwinsOptions(),
            model="barlow_twins_resnet18",
            data=CIFAR10,
            views=CIFAR10_VIEWS,
            image_size=64,
            batch_size=256,
            lr=0.12,
            lr_batch_size=256,
            warmup_epochs=10,
            weight_decay=1e-4,
        ),
        about="Barlow Twins on CIFAR-10: 64 pixels, two views, ImageNet's stem, SGD.",
        cost="about 200 epochs of ResNet-18 at 64 pixels; " + NOT_MEASURED,
        expected="kNN top-1 0.54, AUROC of κ 0.62 after 12 epochs at 32 pixels, of CIFAR-10 as JPEG of quality 75; "
        "200 epochs at 64 pixels: " + NOT_MEASURED,
    ),
    NamedRecipe(
        "barlow_twins_resnet18_imagenet100",
        Recipe(
            method=BarlowTwinsOptions(),
            model="barlow_twins_resnet18",
            data=IMAGENET100,
            views=MULTI_CROP,
            image_size=224,
            lr=0.12,
            lr_batch_size=256,
            warmup_epochs=10,
        ),
        about="Barlow Twins on ImageNet-100 with the views of the paper (App. B); the paper trains no Barlow Twins.",
        cost="four V100 for the paper's methods of this size; " + NOT_MEASURED,
        expected=NOT_MEASURED,
    ),
)
