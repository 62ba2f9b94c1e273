"""DINO's head: an embedding becomes a categorical distribution over prototypes.

Caron et al. 2021; in VI-SimSiam's Table 1 the latent space is the simplex and the posterior is Categorical.
The bottleneck is L2-normalised and so is every prototype (weight normalisation with its gain fixed at 1),
so a logit is a cosine: neither an image nor a prototype can win by being long.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vissl_zoo.networks.full_precision import FullPrecisionMLP, autocast_disabled


class PrototypeHead(nn.Module):
    """Linear → BN → ReLU → Linear → L2-normalise → cosine with each prototype.

    The prototypes are an ordinary parameter that is normalised in the forward pass: a parametrization
    (`torch.nn.utils.parametrizations.weight_norm`) would rename the key in every checkpoint.

    Args:
        in_features: width of the embedding.
        bottleneck_dim: dimension of the unit vectors z that are compared with the prototypes.
        prototypes: number K of categories; 2048 in the VI-SimSiam paper.
        hidden: width of the hidden layer.
        teacher_temperature: τ of the sharpened teacher distribution (.04 in the paper).
        device: device of the parameters and of `center`.
        dtype: dtype of the parameters and of `center`.

    Attributes:
        weight: the prototypes (K, bottleneck_dim) before normalisation.
        center: buffer (K,), the running mean of the teacher's logits; whoever trains the head updates it.

    Raises:
        ValueError: fewer than two prototypes, or a dimension or temperature that is not positive.
    """

    def __init__(
        self,
        in_features: int,
        bottleneck_dim: int = 256,
        prototypes: int = 2048,
        hidden: int = 512,
        teacher_temperature: float = 0.04,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.center: Tensor
        if prototypes < 2:
            raise ValueError(f"prototypes must be at least 2, got {prototypes}")
        if min(in_features, bottleneck_dim, hidden) < 1 or teacher_temperature <= 0:
            raise ValueError(
                "in_features, bottleneck_dim, hidden and teacher_temperature must be positive, got "
                f"{in_features}, {bottleneck_dim}, {hidden} and {teacher_temperature}"
            )
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_features = in_features
        self.bottleneck_dim = bottleneck_dim
        self.prototypes = prototypes
        self.teacher_temperature = teacher_temperature
        self.mlp = FullPrecisionMLP(in_features, hidden, bottleneck_dim, **dd)
        self.weight = nn.Parameter(torch.empty(prototypes, bottleneck_dim, **dd))
        nn.init.normal_(self.weight)  # directions uniform on the sphere
        self.register_buffer("center", torch.zeros(prototypes, **dd))

    def forward(self, y: Tensor) -> Tensor:
        """Map embeddings y (B, in_features) to logits g (B, K), cosines in [-1, 1], float32 or better."""
        return self.logits(self.bottleneck(y))

    def bottleneck(self, y: Tensor) -> Tensor:
        """Map embeddings y (B, in_features) to unit vectors z (B, bottleneck_dim)."""
        return F.normalize(self.mlp(y), dim=-1)

    def logits(self, z: Tensor) -> Tensor:
        """Compare unit vectors z (B, bottleneck_dim) with the unit prototypes: g (B, K)."""
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            return self._cosines(z)
        with autocast_disabled(z.device.type):
            return self._cosines(z)

    def teacher_probabilities(self, g: Tensor) -> Tensor:
        """Centre and sharpen logits g (B, K) into P = softmax((g - center)/τ) (B, K); Eq. 4 of the paper."""
        return torch.softmax(self._sharpened(g), dim=-1)

    def uncertainty(self, y: Tensor) -> Tensor:
        """Map embeddings y (B, in_features) to H(P)/log K (B,), in [0, 1] and higher when less certain.

        P is the centred and sharpened teacher distribution of `teacher_probabilities` at its own temperature,
        not the student's: it is the target that DINO's training agrees on.
        """
        log_p = torch.log_softmax(self._sharpened(self(y)), dim=-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        return (entropy / math.log(self.prototypes)).clamp(0, 1)

    def _cosines(self, z: Tensor) -> Tensor:
        dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
        return F.linear(z.to(dtype), F.normalize(self.weight.to(dtype), dim=-1))

    def _sharpened(self, g: Tensor) -> Tensor:
        dtype = torch.float64 if g.dtype == torch.float64 else torch.float32
        return (g.to(dtype) - self.center.to(dtype)) / self.teacher_temperature

    def extra_repr(self) -> str:
        """Show what cannot be read off the layers."""
        return (
            f"bottleneck_dim={self.bottleneck_dim}, prototypes={self.prototypes}, "
            f"teacher_temperature={self.teacher_temperature}"
        )
