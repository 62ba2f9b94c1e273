"""SimSiam: two views, a predictor and a stop-gradient; as inference, a von Mises-Fisher posterior of fixed κ.

Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021; here as §4.1 of the VI-SimSiam
paper reads it (Def. 4.2): prior and inference on the unit sphere, posterior vMF(z; μ = g_θ(x), κ) whose κ and
normaliser are constants, so that J_align is the cosine of the prediction and the target (Claim 4.3).
"""

from __future__ import annotations

from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Method, Row, kappa_fit_loss, pairs, standard_views, unit
from vissl_zoo.networks.projection import predictor, projector


class SimSiam(Method):
    """SimSiam around a model of the zoo.

    Args:
        model: backbone with a κ head; its latent dimension d is the head's.
        hidden: width of the hidden layers of projector and predictor.
        output_norm: batch norm (without scale and shift) on the projector's output.
        kappa_weight: λ of the κ head's own loss, from which no gradient reaches the trunk.
    """

    name = "simsiam"
    row = Row(
        method="SimSiam",
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
        self, model: nn.Module, *, hidden: int = 512, output_norm: bool = True, kappa_weight: float = 30.0
    ):
        super().__init__(model)
        self.projector = projector(model.head_hidden_size, hidden, self.dim, output_norm=output_norm)
        self.predictor = predictor(self.dim, hidden)
        self.kappa_weight = kappa_weight

    def infer(self, views: list[Tensor]) -> Latents:
        """y = backbone(x), z = projector(y)/‖·‖, μ = predictor(z̃)/‖·‖, κ = κ-head(y)."""
        y = self.embed(views)
        flat = y.flatten(0, 1)
        z_tilde = self.projector(flat)
        mean = unit(self.predictor(z_tilde))
        z = unit(z_tilde.detach())
        kappa = self.model.kappa_head(self.kappa_input(flat))
        shape = y.shape[:2]
        return Latents(
            embedding=y,
            mean=mean.unflatten(0, shape),
            target=z.unflatten(0, shape)[: standard_views(views)],  # stop-gradient: z is never trained
            kappa=kappa.unflatten(0, shape),
        )

    def kappa_input(self, embedding: Tensor) -> Tensor:
        """What the κ head sees: y (B, F) behind a stop-gradient, so that the trunk is SimSiam's own."""
        return embedding.detach()

    def alignment(self, latents: Latents) -> Tensor:
        """Mean of μ_i·z_j over the pairs i ≠ j (Eq. 22)."""
        return self.cosine(latents)

    def cosine(self, latents: Latents) -> Tensor:
        """Mean cosine of a prediction μ_i and its targets z_j, i ≠ j."""
        i, j = pairs(len(latents.mean), len(latents.target), latents.mean.device)
        return (latents.mean[i] * latents.target[j]).sum(-1).mean()

    def signals(self, latents: Latents) -> dict[str, Tensor]:
        """The cosine, which every objective here is about; 1 at once is a sign of collapse."""
        return {"cosine": self.cosine(latents)}

    def kappa_fit(self, latents: Latents) -> Tensor | None:
        """The κ head learns how well one view predicts another, with the trunk untouched."""
        return kappa_fit_loss(latents, self.dim, self.kappa_weight)

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """The predictor's: SimSiam's recipe keeps its learning rate at the initial value."""
        return list(self.predictor.parameters())

    def heads(self) -> dict[str, nn.Module]:
        """Projector and predictor."""
        return {"projector": self.projector, "predictor": self.predictor}
