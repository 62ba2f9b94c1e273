"""The methods whose latent space is the sphere S^(d-1): a projector, a direction, and κ read from the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vissl_zoo.distributions import PowerSpherical
from vissl_zoo.methods.base import Latents, Method, standard_views
from vissl_zoo.networks.projection import projector
from vissl_zoo.recipes.recipe import MethodOptions


@dataclass(frozen=True)
class SphericalOptions(MethodOptions):
    """Options of every method on the sphere."""

    model_options = ("latent_dim", "kappa_map")
    output_norm: ClassVar[bool] = False  # a field of those methods that leave the choice

    latent_dim: int = 2048
    """d, the dimension of the latent space around the sphere."""
    kappa_map: Literal["softplus", "exp"] = "softplus"
    """How the κ head's output becomes positive."""
    hidden: int = 512
    """Width of the hidden layer of the projector, and of the predictor where there is one."""
    kappa_weight: float | None = None
    """λ, the weight of κ's own loss, which never reaches the trunk; None: 30 for the softplus map, 1 for exp."""


class SphericalMethod(Method):
    """A method whose latent is the direction of a projector's output; κ is fitted beside it. Arguments as in Method.

    Raises:
        ValueError: also for a negative `kappa_weight`.
    """

    options: SphericalOptions

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        self.projector = projector(
            self.model.kappa_head.in_features,
            self.options.hidden,
            self.dim,
            output_norm=self.options.output_norm,
        )
        self.kappa_weight = kappa_weight_for(model, self.options.kappa_weight)

    def infer(self, views: list[Tensor]) -> Latents:
        """y = backbone(x), z = projector(y)/‖·‖ both as mean and as target, κ = κ-head(sg(y))."""
        y = self.embed(views)
        z = unit(self.projector(y.flatten(0, 1))).unflatten(0, y.shape[:2])
        return Latents(y, mean=z, target=z[: standard_views(views)], kappa=self.kappa(y.detach()))

    def kappa(self, embedding: Tensor) -> Tensor:
        """κ (V, B) of embeddings (V, B, F)."""
        return self.model.kappa_head(embedding.flatten(0, 1)).unflatten(0, embedding.shape[:2])

    def kappa_fit(self, latents: Latents) -> Tensor | None:
        """The κ head learns how well one view predicts another, with the trunk untouched."""
        return kappa_fit_loss(latents, self.kappa_weight)

    @property
    def kappa_is_detached(self) -> bool:
        """See `Method`."""
        return True

    def signals(self, latents: Latents) -> dict[str, Tensor]:
        """The cosine, which every objective on the sphere is about; 1 at once is a sign of collapse."""
        return {"cosine": mean_cosine(latents)}

    def heads(self) -> dict[str, nn.Module]:
        """The projector, and the predictor of a method that has one."""
        names = ("projector", "predictor")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def unit(x: Tensor) -> Tensor:
    """x / ‖x‖ along the last dimension, in float32 or better whatever autocast made of x."""
    return normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)


def mean_cosine(latents: Latents) -> Tensor:
    """Mean of μ_i·z_j over the pairs of a view and its target, a scalar."""
    mu, z = latents.paired()
    return (mu * z).sum(-1).mean()


def kappa_fit_loss(latents: Latents, weight: float) -> Tensor:
    """-λ/(d-1) · mean log p(z_j | x_i) with everything but κ detached.

    The division makes one λ serve every d: log p grows like d-1.
    """
    mu, z = latents.paired()
    posterior = PowerSpherical(mu.detach(), latents.paired_kappa(), validate_args=False)
    return -weight / (mu.shape[-1] - 1) * posterior.log_prob(z.detach()).mean()


# λ by κ map. A softplus κ has hundreds of units to travel and needs a push; an exp κ moves by factors, and a push of
# 30 throws it out of its bounds in the first steps (seen: κ at its floor for good, with a cosine of 0.99).
KAPPA_WEIGHT = {"softplus": 30.0, "exp": 1.0}


def kappa_weight_for(model: Any, weight: float | None) -> float:
    """λ as given, or else the one that suits the κ map of the model's head.

    Raises:
        ValueError: it is negative or not a number.
    """
    if weight is None:
        return KAPPA_WEIGHT[model.kappa_head.kappa_map]
    if not weight >= 0:
        raise ValueError(f"kappa_weight must not be negative, and not {weight}")
    return weight
