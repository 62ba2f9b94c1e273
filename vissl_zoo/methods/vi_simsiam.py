"""VI-SimSiam: SimSiam whose posterior is Power Spherical, with a concentration κ(x) for every image.

Nakamura, Okada and Taniguchi, "Representation Uncertainty in Self-Supervised Learning as Variational
Inference", ICCV 2023, §5. Where SimSiam's posterior has one κ for all, here a head predicts it, and J_align is
the log-density of the other view's latent (Eq. 33): agreement is worth κ, and claiming κ costs log C(κ).

Three variants of the objective, since the paper's own loses accuracy in long training (§6.6):

- `paper`: Eq. 33 as it stands. The mean direction's gradient is κ z/(1+t), hundreds of times SimSiam's.
- `beta`: each term weighted by sg(κ/(d-1))^-β / (d-1), as β-NLL does for Gaussians (Seitzer et al., ICLR
  2022). β = 1 gives the mean direction SimSiam's gradient times 1/(1+t); the trunk still hears κ.
- `detached`: SimSiam's loss for the trunk; κ is fitted behind stop-gradients, so it costs no accuracy.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import (
    Latents,
    Row,
    check_choice,
    check_share,
    kappa_fit_loss,
    power_spherical_terms,
)
from vissl_zoo.methods.simsiam import Predictor, SimSiam, Targets

Variant = Literal["paper", "beta", "detached"]


class VISimSiam(SimSiam):
    """VI-SimSiam around a model of the zoo; the networks are SimSiam's.

    Args:
        model: backbone with a κ head, which also fixes the κ map (`softplus` or `exp`).
        variant: "paper", "beta" or "detached".
        beta: β of the `beta` variant, in [0, 1]; 0 is `paper` divided by d-1.
        kappa_weight: λ of the `detached` variant; None: 30 for the softplus map, 1 for exp.
        kappa_warmup: fraction of the training over which κ is released from d-1, its start with the `exp`
            map. At the start cos ≈ 0, where the best κ is 0, a point that `exp` hardly leaves again; held
            back, κ waits until the mean direction has learnt something.
        hidden, output_norm, predictor, targets: as in SimSiam.

    Raises:
        ValueError: for an unknown variant, or β or the warm-up outside [0, 1].
    """

    name = "vi_simsiam"
    row = Row(
        method="VI-SimSiam",
        section="§5",
        paper="ICCV 2023",
        latent_space="S^(d-1)",
        prior="uniform",
        inference="deterministic",
        posterior="Power Spherical, κ(x)",
        alignment="log C(κ) + κ log1p(μ·z)",
        uniformity="predictor, stop-gradient",
        kl="const.",
        uncertainty_aware="yes (κ)",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        variant: Variant = "detached",
        beta: float = 1.0,
        kappa_weight: float | None = None,
        kappa_warmup: float = 0.0,
        hidden: int = 512,
        output_norm: bool = True,
        predictor: Predictor = "mlp",
        targets: Targets = "each",
    ):
        check_choice("variant", variant, Variant)
        check_share("beta", beta)
        check_share("kappa_warmup", kappa_warmup)
        super().__init__(
            model,
            hidden=hidden,
            output_norm=output_norm,
            kappa_weight=kappa_weight,
            predictor=predictor,
            targets=targets,
        )
        self.variant: Variant = variant
        self.beta = beta
        self.kappa_warmup = kappa_warmup
        self.register_buffer("release", torch.tensor(0.0 if kappa_warmup else 1.0), persistent=False)

    def kappa_input(self, embedding: Tensor) -> Tensor:
        """y (B, F): with its gradient, but for `detached`."""
        return embedding.detach() if self.variant == "detached" else embedding

    def infer(self, views: list[Tensor]) -> Latents:
        """As SimSiam's; κ is held at d-1 while `release` is 0 and is the head's own once it is 1."""
        latents = super().infer(views)
        if self.kappa_warmup:
            held = float(self.dim - 1)
            latents.kappa = held * (latents.kappa / held) ** self.release.to(latents.kappa.dtype)
        return latents

    def alignment(self, latents: Latents) -> Tensor:
        """Mean over the pairs i ≠ j of log C(κ_i) + κ_i log1p(μ_i·z_j) (Eq. 33), or its variant."""
        if self.variant == "detached":
            return self.cosine(latents) - kappa_fit_loss(latents, self.dim, self.kappa_weight)
        terms, kappa = power_spherical_terms(latents, self.dim)
        if self.variant == "beta":
            terms = terms * (kappa.detach() / (self.dim - 1)) ** -self.beta / (self.dim - 1)
        return terms.mean()

    def kappa_fit(self, latents: Latents) -> None:
        """κ is part of J_align here."""
        return None

    def on_step_start(self, progress: float) -> None:
        """Release κ linearly (in its logarithm) over the warm-up."""
        if self.kappa_warmup:
            self.release.fill_(min(1.0, progress / self.kappa_warmup))
