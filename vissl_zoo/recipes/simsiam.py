"""Recipes of SimSiam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vissl_zoo.recipes.base import MethodOptions, NamedRecipe, Recipe
from vissl_zoo.recipes.common import CIFAR10, CIFAR10_VIEWS, IMAGENET100, MULTI_CROP, NOT_MEASURED


@dataclass(frozen=True)
class SimSiamOptions(MethodOptions):
    """SimSiam's own options."""

    name = "simsiam"
    model_options = ("latent_dim", "kappa_map")

    latent_dim: int = 2048
    """d, the dimension of the latent space around the sphere."""
    kappa_map: Literal["softplus", "exp"] = "softplus"
    """How the κ head's output becomes positive."""
    hidden: int = 512
    """Width of the hidden layers of projector and predictor."""
    output_norm: bool = True
    """Batch norm, without scale and shift, on the projector's output."""
    kappa_weight: float | None = None
    """λ, the weight of the κ head's own loss, which never reaches the trunk; None: 30 for softplus, 1 for exp."""
    predictor: Literal["mlp", "direct"] = "mlp"
    """A trained network, or DirectPred (Eq. 23): computed from the eigenvectors of the latents."""
    targets: Literal["each", "mean"] = "each"
    """Predict every other view's latent, or the mean of them (FastSiam, best with --views.standard 4)."""


RECIPES = (
    NamedRecipe(
        "simsiam_resnet18_cifar10",
        Recipe(
            method=SimSiamOptions(),
            model="simsiam_resnet18",
            data=CIFAR10,
            views=CIFAR10_VIEWS,
            image_size=64,
            lr=0.2,
        ),
        about="SimSiam with the paper's optimizer (App. B) on CIFAR-10: 64 pixels, two views, ImageNet's stem.",
        cost="about 200 epochs of ResNet-18 at 64 pixels; " + NOT_MEASURED,
        expected=NOT_MEASURED,
    ),
    NamedRecipe(
        "simsiam_resnet18_imagenet100",
        Recipe(
            method=SimSiamOptions(output_norm=False),
            model="simsiam_resnet18",
            data=IMAGENET100,
            views=MULTI_CROP,
            image_size=224,
            lr=0.2,
        ),
        about="SimSiam as the paper trains it on ImageNet-100 (App. B).",
        cost="four V100 in the paper",
        expected="the paper's Table 2: linear top-1 78.49 ± 0.89 at 200 epochs; " + NOT_MEASURED,
    ),
)
