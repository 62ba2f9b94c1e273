"""SimCLR: attract the other view, repel all other images; as inference, both terms of the objective made explicit.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020; here as §4.2 of
the VI-SimSiam paper reads it. Prior, inference and posterior are SimSiam's (Def. 4.2), with κ fixed at 1/τ; but
J_uniform is not left to a predictor: E[-log p_D(z)] is estimated by the minibatch, which gives NT-Xent (Claim 4.5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Row, SphericalMethod
from vissl_zoo.networks.normalization import all_gather, rank


class SimCLR(SphericalMethod):
    """SimCLR around a model of the zoo. Negatives are the standard views of the global batch.

    Args:
        model: backbone with a κ head; its latent dimension d is the head's.
        temperature: τ of NT-Xent; 1/τ is the fixed concentration.
        hidden: width of the projector's hidden layer.
        output_norm: batch norm (without scale and shift) on the projector's output.
        kappa_weight: λ of the κ head's own loss, from which no gradient reaches the trunk; None: by the κ map.

    Raises:
        ValueError: for a temperature that is not positive.
    """

    name = "simclr"
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

    def __init__(
        self,
        model: nn.Module,
        *,
        temperature: float = 0.2,
        hidden: int = 512,
        output_norm: bool = True,
        kappa_weight: float | None = None,
    ):
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        super().__init__(model, hidden=hidden, output_norm=output_norm, kappa_weight=kappa_weight)
        self.temperature = temperature

    def alignment(self, latents: Latents) -> Tensor:
        """Mean of z_i·z_j / τ over the pairs i ≠ j: the numerators of Eq. 26."""
        return self.cosine(latents) / self.temperature

    def uniformity(self, latents: Latents) -> Tensor:
        """Minus the mean log of the denominators of Eq. 26: over all standard views but the view itself.

        Every pair (i, j) of one view i has the same denominator, so views count as often as they have pairs.
        """
        views, batch, _ = latents.mean.shape
        candidates = all_gather(latents.target, dim=1)  # (S, B_global, d), with gradient
        logits = torch.einsum("vbd,scd->vbsc", latents.mean, candidates) / self.temperature
        own = torch.arange(batch, device=logits.device)
        for view in range(min(views, len(candidates))):
            logits[view, own, view, rank() * batch + own] = -torch.inf
        denominators = logits.flatten(2).logsumexp(-1)  # (V, B)
        i, _ = latents.pairs()
        return -denominators.index_select(0, i).mean()
