"""SimCLR: attract the other view, repel all other images; as inference, both terms of the objective made explicit.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020; here as §4.2 of the
VI-SimSiam paper reads it. Prior, inference and posterior are SimSiam's (Def. 4.2), with κ fixed at 1/τ. J_uniform is
not left to a predictor: the minibatch estimates E[-log p_D(z)], which gives NT-Xent (Claim 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Row
from vissl_zoo.methods.spherical import SphericalMethod, SphericalOptions, mean_cosine
from vissl_zoo.networks.batch_norm import all_gather, rank
from vissl_zoo.recipes import NOT_MEASURED, MethodOptions, cifar10, imagenet100


@dataclass(frozen=True)
class Options(SphericalOptions):
    """SimCLR's own options."""

    name = "simclr"

    temperature: float = 0.2
    """τ of the softmax over the views of the global batch; 1/τ is the fixed concentration."""
    output_norm: bool = True
    """Batch norm, without scale and shift, on the projector's output."""


class SimCLR(SphericalMethod):
    """SimCLR around a model of the zoo. Negatives are the global batch's standard views. Arguments as in Method."""

    name = "simclr"
    Options = Options
    options: Options
    row = Row(
        method="SimCLR",
        section="§4.2",
        paper="ICML 2020",
        latent_space="S^(d-1)",
        prior="uniform",
        inference="deterministic",
        posterior="von Mises-Fisher, κ fixed",
        alignment="log-softmax numerator, μ·z/τ",
        uniformity="minibatch denominator",
        kl="const.",
        uncertainty_aware="no (κ fitted beside it)",
    )

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        if not self.options.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.options.temperature}")

    def alignment(self, latents: Latents) -> Tensor:
        """Mean of z_i·z_j / τ over the pairs i ≠ j: the numerators of Eq. 26."""
        return mean_cosine(latents) / self.options.temperature

    def uniformity(self, latents: Latents) -> Tensor:
        """Minus the mean log of the denominators of Eq. 26: over all standard views but the view itself.

        Every pair (i, j) of one view i has the same denominator, so views count as often as they have pairs.
        """
        views, batch, _ = latents.mean.shape
        candidates = all_gather(latents.target, dim=1)  # (S, B_global, d), with gradient
        logits = torch.einsum("vbd,scd->vbsc", latents.mean, candidates) / self.options.temperature
        for view in range(min(views, len(candidates))):  # by slices: indices make the host wait for a GPU
            logits[view, :, view].narrow(1, rank() * batch, batch).diagonal().fill_(-torch.inf)
        denominators = logits.flatten(2).logsumexp(-1)  # (V, B)
        i, _ = latents.pairs()
        return -denominators.index_select(0, i).mean()


RECIPES = (
    cifar10(
        Options(),
        "SimCLR on CIFAR-10: 64 pixels, two views, ImageNet's stem, SGD.",
        expected="kNN top-1 0.58, AUROC of κ 0.63 after 12 epochs at 32 pixels, of CIFAR-10 as JPEG of quality 75; "
        f"200 epochs at 64 pixels: {NOT_MEASURED}",
        batch_size=256,
        lr=0.12,
        lr_batch_size=256,
        warmup_epochs=10,
        weight_decay=5e-4,
    ),
    imagenet100(
        Options(),
        "SimCLR on ImageNet-100 with the views of the paper (App. B); the paper trains no SimCLR.",
        lr=0.12,
        lr_batch_size=256,
        warmup_epochs=10,
    ),
)
