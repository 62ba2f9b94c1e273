"""BYOL: SimSiam with a target network that trails behind; as inference, q(z|x) and p(z|x) with parameters of their own.

Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020. The VI-SimSiam paper writes the inference model with
parameters φ and the posterior with θ (Eqs. 19 and 20) and takes the EMA target as one way to relate them (§4.4):
f_φ is the moving average of f_θ, everything else is SimSiam's column.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, check_share, standard_views, unit
from vissl_zoo.methods.simsiam import SimSiam
from vissl_zoo.networks.ema import ema_momentum_at, ema_update


class BYOL(SimSiam):
    """BYOL around a model of the zoo. The online network is the one that is published.

    Args:
        model: backbone with a κ head; its latent dimension d is the head's.
        ema_momentum: of the target network at the start; it rises to 1 along a cosine.
        hidden: width of the hidden layers of projector and predictor.
        output_norm: batch norm (without scale and shift) on the projector's output; BYOL's own has none.
        kappa_weight: λ of the κ head's own loss, from which no gradient reaches the trunk; None: by the κ map.

    Raises:
        ValueError: for a momentum outside [0, 1].
    """

    name = "byol"
    row = replace(
        SimSiam.row,
        method="BYOL",
        section="§4.4",
        paper="NeurIPS 2020",
        uniformity="predictor, stop-gradient, EMA target",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        ema_momentum: float = 0.996,
        hidden: int = 512,
        output_norm: bool = False,
        kappa_weight: float | None = None,
    ):
        check_share("ema_momentum", ema_momentum)
        super().__init__(model, hidden=hidden, output_norm=output_norm, kappa_weight=kappa_weight)
        self.ema_momentum = self._momentum_now = ema_momentum
        self.target = nn.ModuleDict(
            {"model": copy.deepcopy(model), "projector": copy.deepcopy(self.projector)}
        ).requires_grad_(False)
        self.target["model"].kappa_head = None

    def infer(self, views: list[Tensor]) -> Latents:
        """As SimSiam's, but z = target projector(target backbone(x))/‖·‖ of the standard views."""
        latents = super().infer(views)
        with torch.no_grad():
            y = self.embed(views[: standard_views(views)], self.target["model"])
            z = unit(self.target["projector"](y.flatten(0, 1))).unflatten(0, y.shape[:2])
        return replace(latents, target=z)

    def on_step_start(self, progress: float) -> None:
        """Raise the target's momentum to 1 along a cosine."""
        self._momentum_now = ema_momentum_at(progress, self.ema_momentum)

    def on_step_end(self) -> None:
        """Move the target network, once per optimizer step."""
        ema_update(self.target["model"], self.model, self._momentum_now)
        ema_update(self.target["projector"], self.projector, self._momentum_now)
