"""The κ head: how concentrated the posterior p(z|x) is, read from the backbone's embedding.

VI-SimSiam (appendix B) predicts the concentration of a Power Spherical posterior with an MLP of two linear
layers: batch normalisation and ReLU after the first, softplus after the second.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vissl_zoo.networks.full_precision import FullPrecisionMLP

KAPPA_MAPS = ("softplus", "exp")

KAPPA_FLOOR = 1e-6
"""Smallest κ of the softplus map. In float32 softplus(u) is exactly 0 below u ≈ -104, and log κ, 1/κ or a
division by κ further on would then be infinite. At 1e-6 the density is uniform to 6 digits for every d."""

EXP_BOUND = 7.0
"""Bound of the exponent of the exp map: (d-1)e^-7 < κ < (d-1)e^7, that is uncertainty from .001 to .999.
Reached through 7·tanh(u/7), not a clamp, so that the gradient never vanishes exactly."""


class KappaHead(nn.Module):
    """Predict the concentration κ of each image from its embedding.

    Args:
        in_features: width of the embedding.
        latent_dim: ambient dimension d of the sphere S^(d-1) on which κ lives, at least 2. It scales the
            `exp` map and turns κ into an uncertainty; it is no layer's width.
        kappa_map: "softplus", the paper's: κ = softplus(u) ≥ 1e-6; or "exp": κ = (d-1)·exp(7·tanh(u/7)),
            which starts at κ ≈ d-1 (uncertainty ½) and learns on κ's natural, logarithmic scale.
        hidden: width of the hidden layer, by default `in_features` as in the paper (512 for ResNet-18).
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: unknown `kappa_map`, or a dimension out of range.
    """

    def __init__(
        self,
        in_features: int,
        latent_dim: int = 2048,
        kappa_map: str = "softplus",
        hidden: int | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if kappa_map not in KAPPA_MAPS:
            raise ValueError(f"kappa_map must be one of {', '.join(KAPPA_MAPS)}, got {kappa_map!r}")
        if latent_dim < 2:
            raise ValueError(f"latent_dim must be at least 2, got {latent_dim}")
        if in_features < 1 or (hidden is not None and hidden < 1):
            raise ValueError(f"in_features and hidden must be positive, got {in_features} and {hidden}")
        self.in_features = in_features
        self.latent_dim = latent_dim
        self.kappa_map = kappa_map
        self.kappa_floor, self.exp_bound = KAPPA_FLOOR, EXP_BOUND  # TorchScript reads no module globals
        self.mlp = FullPrecisionMLP(in_features, hidden or in_features, 1, device=device, dtype=dtype)
        if kappa_map == "exp":  # e^u doubles every 0.7: begin with every image at κ ≈ d-1
            nn.init.normal_(self.mlp.fc2.weight, std=0.1 / math.sqrt(hidden or in_features))
            nn.init.zeros_(self.mlp.fc2.bias)

    def forward(self, y: Tensor) -> Tensor:
        """Map embeddings y (B, in_features) to κ (B,): positive, finite, float32 or better.

        Autocast and low-precision weights do not reach it; float64 parameters give float64.
        """
        u = self.mlp(y).squeeze(-1)
        if self.kappa_map == "exp":
            return (self.latent_dim - 1) * torch.exp(self.exp_bound * torch.tanh(u / self.exp_bound))
        return F.softplus(u).clamp_min(self.kappa_floor)

    def uncertainty(self, kappa: Tensor) -> Tensor:
        """Turn κ (B,) into 1 - E[t] = (d-1)/(d-1+κ) (B,), in [0, 1] and higher when less certain.

        t = μ·z is the cosine between the mean direction and a draw from the Power Spherical distribution
        (De Cao & Aziz 2020). Unlike κ it can be compared between latent dimensions.
        """
        return (self.latent_dim - 1) / (self.latent_dim - 1 + kappa)

    def extra_repr(self) -> str:
        """Show what cannot be read off the layers."""
        return f"latent_dim={self.latent_dim}, kappa_map={self.kappa_map!r}"
