"""SimSiam: two views, a predictor and a stop-gradient; as inference, a von Mises-Fisher posterior of fixed κ.

Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021; here as §4.1 of the VI-SimSiam
paper reads it (Def. 4.2): prior and inference on the unit sphere, posterior vMF(z; μ = g_θ(x), κ) whose κ and
normaliser are constants, so that J_align is the cosine of the prediction and the target (Claim 4.3).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Row, SphericalMethod, check_choice, standard_views, unit
from vissl_zoo.networks.direct_predictor import DirectPredictor
from vissl_zoo.networks.projection import predictor as mlp_predictor

Predictor = Literal["mlp", "direct"]
Targets = Literal["each", "mean"]


class SimSiam(SphericalMethod):
    """SimSiam around a model of the zoo.

    Args:
        model: backbone with a κ head; its latent dimension d is the head's.
        hidden: width of the hidden layers of projector and predictor.
        output_norm: batch norm (without scale and shift) on the projector's output.
        kappa_weight: λ of the κ head's own loss, from which no gradient reaches the trunk; None: by the κ map.
        predictor: "mlp", or "direct" for DirectPred (Eq. 23), which is set from the latents and not trained.
        targets: "each" predicts every other standard view's z, "mean" the mean of them, as FastSiam does
            (Pototzky et al., GCPR 2022), which pays with four standard views.

    Raises:
        ValueError: for an unknown predictor or kind of target.
    """

    name = "simsiam"
    row = Row(
        method="SimSiam",
        section="§4.1",
        paper="CVPR 2021",
        latent_space="S^(d-1)",
        prior="uniform",
        inference="deterministic",
        posterior="von Mises-Fisher, κ fixed",
        alignment="μ·z",
        uniformity="predictor, stop-gradient",
        kl="const.",
        uncertainty_aware="no (κ fitted beside it)",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        hidden: int = 512,
        output_norm: bool = True,
        kappa_weight: float | None = None,
        predictor: Predictor = "mlp",
        targets: Targets = "each",
    ):
        check_choice("predictor", predictor, Predictor)
        check_choice("targets", targets, Targets)
        super().__init__(model, hidden=hidden, output_norm=output_norm, kappa_weight=kappa_weight)
        self.predictor = (
            DirectPredictor(self.dim) if predictor == "direct" else mlp_predictor(self.dim, hidden)
        )
        self.targets = targets

    def infer(self, views: list[Tensor]) -> Latents:
        """y = backbone(x), z = sg(projector(y))/‖·‖, μ = predictor(z̃)/‖·‖, κ = κ-head(y)."""
        y = self.embed(views)
        z_tilde = self.projector(y.flatten(0, 1))
        mean = unit(self.predictor(z_tilde)).unflatten(0, y.shape[:2])
        z = unit(z_tilde.detach()).unflatten(0, y.shape[:2])[: standard_views(views)]
        if self.targets == "mean":
            z = mean_of_others(z, len(views))
        return Latents(y, mean, z, self.kappa(self.kappa_input(y)), own_target=self.targets == "mean")

    def kappa_input(self, embedding: Tensor) -> Tensor:
        """What the κ head sees: y (V, B, F) behind a stop-gradient, so that the trunk is SimSiam's own."""
        return embedding.detach()

    def alignment(self, latents: Latents) -> Tensor:
        """Mean of μ_i·z_j over the pairs i ≠ j (Eq. 22)."""
        return self.cosine(latents)

    def on_step_end(self) -> None:
        """Set DirectPred's predictor from the latents of the step."""
        if isinstance(self.predictor, DirectPredictor):
            self.predictor.update()

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """The predictor's: SimSiam's recipe keeps its learning rate at the initial value."""
        return list(self.predictor.parameters())


def mean_of_others(z: Tensor, views: int) -> Tensor:
    """For each of `views` views the direction (views, B, d) of the mean of the other views' z (S, B, d).

    A view beyond the S standard ones has no z of its own: its target is the mean of all S.
    """
    own = torch.zeros(views, len(z), dtype=z.dtype, device=z.device)
    own[: len(z)] = torch.eye(len(z), dtype=z.dtype, device=z.device)
    return unit(torch.einsum("vs,sbd->vbd", 1 - own, z))
