"""DirectPred: a linear predictor that is computed, not trained (Tian et al., ICML 2021; Eqs. 23-25).

h(z) = (U Λ^½ Uᵀ) z with U and Λ the eigenvectors and eigenvalues of E[z zᵀ]. The paper reads it as what maximises
J_uniform (Claim 4.4): directions of little variance are amplified against those of much, until Λ is flat.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vissl_zoo.networks.batch_norm import all_reduce_sum
from vissl_zoo.networks.full_precision import autocast_disabled


class DirectPredictor(nn.Module):
    """Linear predictor (B, d) to (B, d) whose weight follows the latents' second moment.

    Args:
        dim: d.
        momentum: ρ of the moving average of E[z zᵀ], over optimizer steps.
        epsilon: added to the square roots of the eigenvalues, as a share of the largest. Eq. 23 has none;
            DirectPred's own value of 0.1 keeps directions alive whose eigenvalue has fallen to zero.
    """

    moment: Tensor
    weight: Tensor
    updates: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.9, epsilon: float = 0.1):
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("moment", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.eye(dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        # Plain attributes, not buffers: DDP broadcasts buffers, and each process has its own sum.
        self._sum: Tensor | None = None
        self._count = 0

    def forward(self, z: Tensor) -> Tensor:
        """(U Λ^½ Uᵀ) z for each row of z (B, d), up to a common factor; remembers z zᵀ while training."""
        if self.training:
            with torch.no_grad(), autocast_disabled(z.device.type):
                z_unit = nn.functional.normalize(z.detach().to(self.moment.dtype), dim=1)
                moment = z_unit.T @ z_unit
                self._sum = moment if self._sum is None else self._sum + moment
                self._count += len(z)
        return z @ self.weight.to(z.dtype)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average by what was seen since the last call, on all processes, and set the weight."""
        if self._sum is None:
            return
        count = self._sum.new_tensor([self._count])
        total = all_reduce_sum(torch.cat([self._sum.flatten(), count]))
        moment = (total[:-1] / total[-1]).view_as(self.moment)
        self._sum, self._count = None, 0
        # Chosen on the device: an `if` would make the host wait for it at every step.
        self.moment.copy_(torch.where(self.updates == 0, moment, self.moment.lerp(moment, 1 - self.momentum)))
        self.weight.copy_(direct_weight(self.moment, self.epsilon))
        self.updates += 1


def direct_weight(moment: Tensor, epsilon: float = 0.0) -> Tensor:
    """U (Λ^½ / √λ_max + ε) Uᵀ (d, d) of the second moment E[z zᵀ] (d, d).

    The division makes the largest gain 1 + ε; the mean direction that comes of it is the same.
    """
    values, vectors = torch.linalg.eigh(moment)
    gains = (values.clamp_min(0) / values.max().clamp_min(1e-12)).sqrt() + epsilon
    return (vectors * gains) @ vectors.T
