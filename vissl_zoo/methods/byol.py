"""BYOL: SimSiam with a target network that trails behind; as inference, q(z|x) and p(z|x) with parameters of their own.

Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020. The VI-SimSiam paper writes the inference model with parameters
φ and the posterior with θ (Eqs. 19 and 20), and takes the EMA target as one way to relate them (§4.4). f_φ is the
moving average of f_θ; everything else is SimSiam's column.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, check_share, standard_views
from vissl_zoo.methods.simsiam import SimSiam
from vissl_zoo.methods.spherical import SphericalMethod, SphericalOptions, mean_cosine, unit
from vissl_zoo.networks.ema import ema_momentum_at, ema_update
from vissl_zoo.networks.projection import predictor
from vissl_zoo.recipes import MethodOptions, cifar10, imagenet100


@dataclass(frozen=True)
class Options(SphericalOptions):
    """BYOL's own options."""

    name = "byol"

    ema_momentum: float = 0.996
    """Momentum of the target network at the start; it rises to 1 along a cosine."""
    output_norm: bool = False
    """Batch norm, without scale and shift, on the projector's output; BYOL's own has none."""


class BYOL(SphericalMethod):
    """BYOL around a model of the zoo; the online network is the one that is published. Arguments as in Method."""

    name = "byol"
    Options = Options
    options: Options
    row = replace(
        SimSiam.row,
        method="BYOL",
        section="§4.4",
        paper="NeurIPS 2020",
        uniformity="predictor, stop-gradient, EMA target",
    )

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        check_share("ema_momentum", self.options.ema_momentum)
        self._momentum_now = self.options.ema_momentum
        self.predictor = predictor(self.dim, self.options.hidden)
        copies = {"model": copy.deepcopy(model), "projector": copy.deepcopy(self.projector)}
        self.target = nn.ModuleDict(copies).requires_grad_(False)
        self.target["model"].register_module("kappa_head", None)

    def infer(self, views: list[Tensor]) -> Latents:
        """μ = predictor(z̃)/‖·‖, κ = κ-head(sg(y)), and z = z̃'/‖·‖ of the target network for the standard views."""
        y = self.embed(views)
        mu = unit(self.predictor(self.projector(y.flatten(0, 1)))).unflatten(0, y.shape[:2])
        kappa = self.kappa(y.detach())
        with torch.no_grad():
            y_target = self.embed(views[: standard_views(views)], self.target["model"])
            z = unit(self.target["projector"](y_target.flatten(0, 1))).unflatten(0, y_target.shape[:2])
        return Latents(y, mu, z, kappa)

    def alignment(self, latents: Latents) -> Tensor:
        """Mean of μ_i·z_j over the pairs i ≠ j (Eq. 22)."""
        return mean_cosine(latents)

    def on_step_start(self, progress: float) -> None:
        """Raise the target's momentum to 1 along a cosine."""
        self._momentum_now = ema_momentum_at(progress, self.options.ema_momentum)

    def on_step_end(self) -> None:
        """Move the target network, once per optimizer step."""
        ema_update(self.target["model"], self.model, self._momentum_now)
        ema_update(self.target["projector"], self.projector, self._momentum_now)

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """The predictor's, as in SimSiam."""
        return list(self.predictor.parameters())


RECIPES = (
    cifar10(
        Options(),
        "BYOL on CIFAR-10: 64 pixels, two views, ImageNet's stem, SGD.",
        batch_size=256,
        lr=0.1,
        lr_batch_size=256,
        warmup_epochs=10,
        weight_decay=5e-4,
    ),
    imagenet100(
        Options(),
        "BYOL on ImageNet-100 with the views of the paper (App. B); the paper trains no BYOL.",
        lr=0.1,
        lr_batch_size=256,
        warmup_epochs=10,
    ),
)
