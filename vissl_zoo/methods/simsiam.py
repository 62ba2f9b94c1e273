"""SimSiam: two views, a predictor and a stop-gradient; as inference, a von Mises-Fisher posterior of fixed κ.

Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021; here as §4.1 of the VI-SimSiam paper reads
it (Def. 4.2). Prior and inference live on the unit sphere, and the posterior is vMF(z; μ = g_θ(x), κ). Its κ and its
normaliser are constants, so J_align is the cosine of the prediction and the target (Claim 4.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Row, standard_views
from vissl_zoo.methods.spherical import SphericalMethod, SphericalOptions, mean_cosine, unit
from vissl_zoo.networks.direct_predictor import DirectPredictor
from vissl_zoo.networks.projection import predictor
from vissl_zoo.recipes import NOT_MEASURED, MethodOptions, cifar10, imagenet100


@dataclass(frozen=True)
class Options(SphericalOptions):
    """SimSiam's own options."""

    name = "simsiam"

    output_norm: bool = True
    """Batch norm, without scale and shift, on the projector's output."""
    predictor: Literal["mlp", "direct"] = "mlp"
    """A trained network, or DirectPred (Eq. 23): computed from the eigenvectors of the latents."""
    targets: Literal["each", "mean"] = "each"
    """Predict every other view's latent, or the mean of them (FastSiam, best with --views.standard 4)."""


class SimSiam(SphericalMethod):
    """SimSiam around a model of the zoo. Arguments as in Method."""

    name = "simsiam"
    Options = Options
    options: Options
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

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        direct = self.options.predictor == "direct"
        self.predictor = DirectPredictor(self.dim) if direct else predictor(self.dim, self.options.hidden)

    def infer(self, views: list[Tensor]) -> Latents:
        """y, μ and z as in `directions`; κ = κ-head(sg(y)), so that the trunk is SimSiam's own."""
        y, mu, z = self.directions(views)
        return Latents(y, mu, z, self.kappa(y.detach()), own_target=self.options.targets == "mean")

    def directions(self, views: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """y = backbone(x) (V, B, F), μ = predictor(z̃)/‖·‖ (V, B, d) and z = sg(z̃)/‖·‖ (S, B, d), z̃ = projector(y)."""
        y = self.embed(views)
        z_tilde = self.projector(y.flatten(0, 1))
        mu = unit(self.predictor(z_tilde)).unflatten(0, y.shape[:2])
        z = unit(z_tilde.detach()).unflatten(0, y.shape[:2])[: standard_views(views)]
        return y, mu, mean_of_others(z, len(views)) if self.options.targets == "mean" else z

    def alignment(self, latents: Latents) -> Tensor:
        """Mean of μ_i·z_j over the pairs i ≠ j (Eq. 22)."""
        return mean_cosine(latents)

    def on_step_end(self) -> None:
        """Set DirectPred's predictor from the latents of the step."""
        if isinstance(self.predictor, DirectPredictor):
            self.predictor.update()

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """The predictor's: SimSiam's recipe keeps its learning rate at the initial value."""
        return list(self.predictor.parameters())


def mean_of_others(z: Tensor, views: int) -> Tensor:
    """For each of `views` views the direction (views, B, d) of the mean of the other views' z (S, B, d).

    FastSiam's target (Pototzky et al., GCPR 2022), which pays with four standard views. A view beyond the S standard
    ones has no z of its own: its target is the mean of all S.
    """
    own = torch.zeros(views, len(z), dtype=z.dtype, device=z.device)
    own[: len(z)] = torch.eye(len(z), dtype=z.dtype, device=z.device)
    return unit(torch.einsum("vs,sbd->vbd", 1 - own, z))


RECIPES = (
    cifar10(
        Options(),
        "SimSiam with the paper's optimizer (App. B) on CIFAR-10: 64 pixels, two views, ImageNet's stem.",
        lr=0.2,
    ),
    imagenet100(
        Options(output_norm=False),
        "SimSiam as the paper trains it on ImageNet-100 (App. B).",
        cost="four V100 in the paper",
        expected=f"the paper's Table 2: linear top-1 78.49 ± 0.89 at 200 epochs; {NOT_MEASURED}",
        lr=0.2,
    ),
)
