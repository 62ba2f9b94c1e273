"""Barlow Twins: views should correlate, and features should not; alignment and uniformity of one matrix.

Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021. §4.4 of the VI-SimSiam
paper sketches how it fits: the diagonal of the views' cross-correlation is J_align, the rest is J_uniform. It names no
latent space or posterior; R^d is this project's reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Row, standard_views
from vissl_zoo.methods.spherical import SphericalMethod, SphericalOptions, unit
from vissl_zoo.networks.batch_norm import all_reduce_sum, world_size
from vissl_zoo.recipes import NOT_MEASURED, MethodOptions, cifar10, imagenet100


@dataclass(frozen=True)
class Options(SphericalOptions):
    """Barlow Twins's own options; the defaults of both are the published values."""

    name = "barlow_twins"

    redundancy_weight: float = 0.0051
    """λ of the off-diagonal elements."""
    scale: float = 0.024
    """Factor on the whole loss."""


@dataclass
class BarlowLatents(Latents):
    """`mean` and `target` are the projector's directions, for κ; `standardised` (V, B, d) is what is correlated."""

    standardised: Tensor = field(kw_only=True)


class BarlowTwins(SphericalMethod):
    """Barlow Twins around a model of the zoo. All statistics are those of the global batch. Arguments as in Method.

    The loss standardises the projector's output, so no batch norm does.
    """

    name = "barlow_twins"
    Options = Options
    options: Options
    row = Row(
        method="Barlow Twins",
        section="§4.4",
        paper="ICML 2021",
        latent_space="R^d (our reading)",
        prior="–",
        inference="–",
        posterior="–",
        alignment="diagonal of the cross-correlation",
        uniformity="off-diagonal",
        kl="const.",
        uncertainty_aware="no (κ fitted beside it)",
    )

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        weight, scale = self.options.redundancy_weight, self.options.scale
        if not weight >= 0 or not scale > 0:
            raise ValueError(
                f"redundancy_weight must not be negative, and scale must be positive: {weight}, {scale}"
            )

    def infer(self, views: list[Tensor]) -> BarlowLatents:
        """z̃ = projector(y); each view's z̃ standardised over the global batch, and its direction for κ."""
        y = self.embed(views)
        z_tilde = self.projector(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        z = unit(z_tilde.detach())
        return BarlowLatents(
            y,
            mean=z,
            target=z[: standard_views(views)],
            kappa=self.kappa(y.detach()),
            standardised=standardise(z_tilde),
        )

    def alignment(self, latents: BarlowLatents) -> Tensor:
        """-scale · Σ_k (1 - C_kk)², mean over the pairs of views."""
        diagonal = [(1 - c.diagonal()).square().sum() for c in self.correlations(latents)]
        return -self.options.scale * torch.stack(diagonal).mean()

    def uniformity(self, latents: BarlowLatents) -> Tensor:
        """-scale · λ Σ_k≠l C_kl², mean over the pairs of views."""
        rest = [c.square().sum() - c.diagonal().square().sum() for c in self.correlations(latents)]
        return -self.options.scale * self.options.redundancy_weight * torch.stack(rest).mean()

    def correlations(self, latents: BarlowLatents) -> list[Tensor]:
        """The cross-correlation C (d, d) of each pair of a view and a standard view, over the global batch.

        C of (j, i) is the transpose of that of (i, j), with the same two sums: standard pairs come once.
        """
        count = latents.standardised.shape[1] * world_size()
        standard = len(latents.target)
        pairs = [(i, j) for i in range(len(latents.mean)) for j in range(standard) if i > j]
        found = []
        for i, j in pairs:
            local = latents.standardised[i].T @ latents.standardised[j]
            found.append(all_reduce_sum(local) / count)
        return found


def standardise(z: Tensor, eps: float = 1e-5) -> Tensor:
    """Each view of z (V, B, d) to zero mean and unit variance over the global batch, in float32 or better."""
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    count = z.shape[1] * world_size()
    centred = z - all_reduce_sum(z.sum(1, keepdim=True)) / count
    variance = all_reduce_sum(centred.square().sum(1, keepdim=True)) / count
    return centred * torch.rsqrt(variance + eps)


RECIPES = (
    cifar10(
        Options(),
        "Barlow Twins on CIFAR-10: 64 pixels, two views, ImageNet's stem, SGD.",
        expected="kNN top-1 0.54, AUROC of κ 0.64 after 12 epochs at 32 pixels, of CIFAR-10 as JPEG of quality 75; "
        f"200 epochs at 64 pixels: {NOT_MEASURED}",
        batch_size=256,
        lr=0.12,
        lr_batch_size=256,
        warmup_epochs=10,
    ),
    imagenet100(
        Options(),
        "Barlow Twins on ImageNet-100 with the views of the paper (App. B); the paper trains no Barlow Twins.",
        lr=0.12,
        lr_batch_size=256,
        warmup_epochs=10,
    ),
)
