"""VICReg: views should be alike, and the features of a batch neither constant nor correlated.

Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR
2022. The VI-SimSiam paper does not treat it; this is our reading, by analogy with its Barlow Twins (§4.4). The squared
distance of two views is minus the log-density of a Normal of fixed width, so it is J_align. Variance and covariance
spread the latents out over R^d, so they are J_uniform.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vissl_zoo.methods.base import Latents, Row, standard_views
from vissl_zoo.methods.spherical import SphericalMethod, SphericalOptions, unit
from vissl_zoo.networks.batch_norm import all_reduce_sum, world_size
from vissl_zoo.recipes import MethodOptions, cifar10, imagenet100

EPSILON = 1e-4  # under the square root of the variance, as published


@dataclass(frozen=True)
class Options(SphericalOptions):
    """VICReg's own options; the defaults of the weights are the published values."""

    name = "vicreg"

    invariance_weight: float = 25.0
    """λ of the distance between views."""
    variance_weight: float = 25.0
    """μ of the hinge that keeps each feature's standard deviation at 1 or above."""
    covariance_weight: float = 1.0
    """ν of the squared covariances of different features."""


@dataclass
class VICRegLatents(Latents):
    """`mean` and `target` are the expander's directions, for κ; `expanded` (V, B, d) is what the loss is about."""

    expanded: Tensor = field(kw_only=True)


class VICReg(SphericalMethod):
    """VICReg around a model of the zoo; the projector is its expander. Arguments as in Method.

    Variance and covariance are those of the global batch.
    """

    name = "vicreg"
    Options = Options
    options: Options
    row = Row(
        method="VICReg",
        section="§4.4, by analogy",
        paper="ICLR 2022",
        latent_space="R^d (our reading)",
        prior="–",
        inference="deterministic",
        posterior="Normal, width fixed (our reading)",
        alignment="-‖z - z′‖²",
        uniformity="variance and covariance",
        kl="const.",
        uncertainty_aware="no (κ fitted beside it)",
    )

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        for name in ("invariance_weight", "variance_weight", "covariance_weight"):
            if not getattr(self.options, name) >= 0:
                raise ValueError(f"{name} must not be negative, and not {getattr(self.options, name)}")

    def infer(self, views: list[Tensor]) -> VICRegLatents:
        """z = expander(y), and its direction for κ = κ-head(sg(y))."""
        y = self.embed(views)
        z = self.projector(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        direction = unit(z.detach())
        target = direction[: standard_views(views)]
        return VICRegLatents(y, mean=direction, target=target, kappa=self.kappa(y.detach()), expanded=z)

    def alignment(self, latents: VICRegLatents) -> Tensor:
        """-λ s(Z, Z′), mean over the pairs i ≠ j: the squared distance (Eq. 5) over d, as Algorithm 1 has it."""
        i, j = latents.pairs()
        distance = latents.expanded.index_select(0, i) - latents.expanded.index_select(0, j)
        return -self.options.invariance_weight * distance.square().mean()

    def uniformity(self, latents: VICRegLatents) -> Tensor:
        """-μ [v(Z) + v(Z′)] - ν [c(Z) + c(Z′)], mean over the pairs i ≠ j (Eqs. 1 to 4)."""
        covariance = global_covariance(latents.expanded)  # (V, d, d)
        variances = covariance.diagonal(dim1=1, dim2=2)
        hinge = relu(1 - (variances + EPSILON).sqrt()).mean(1)
        rest = (covariance.square().sum((1, 2)) - variances.square().sum(1)) / self.dim
        of_view = self.options.variance_weight * hinge + self.options.covariance_weight * rest
        i, j = latents.pairs()
        return -(of_view.index_select(0, i) + of_view.index_select(0, j)).mean()


def global_covariance(z: Tensor) -> Tensor:
    """The covariance (V, d, d) of each view of z (V, B, d) over the global batch, unbiased."""
    count = z.shape[1] * world_size()
    centred = z - all_reduce_sum(z.sum(1, keepdim=True)) / count
    return all_reduce_sum(centred.mT @ centred) / (count - 1)


RECIPES = (
    cifar10(
        Options(),
        "VICReg on CIFAR-10: 64 pixels, two views, ImageNet's stem, SGD.",
        batch_size=256,
        lr=0.12,
        lr_batch_size=256,
        warmup_epochs=10,
    ),
    imagenet100(
        Options(),
        "VICReg on ImageNet-100 with the views of the paper (App. B); the paper trains no VICReg.",
        lr=0.12,
        lr_batch_size=256,
        warmup_epochs=10,
    ),
)
