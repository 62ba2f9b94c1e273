"""What all methods share: Table 1 as data, the objective J = J_align + J_uniform + J_KL (Eq. 10), and the κ fit.

A method is an `nn.Module` around one timm model. Its file reads like its column of the paper's Table 1:
`row`, then `alignment`, `uniformity` and `kl`. What the paper realises by a mechanism and not by a number
(a predictor, centering, a stop-gradient) is named in `row` and is `None` in the objective.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vissl_zoo.distributions import log1p_cosine, log_normalizer


@dataclass(frozen=True)
class Row:
    """One column of the paper's Table 1, in words; the README's table is generated from these."""

    method: str
    paper: str
    latent_space: str
    prior: str
    inference: str
    posterior: str
    alignment: str
    uniformity: str
    kl: str
    uncertainty_aware: str

    def cells(self) -> dict[str, str]:
        """The row names of Table 1 with this method's entries."""
        names = {
            "method": "",
            "latent_space": "latent space",
            "prior": "prior p(z)",
            "inference": "inference q(z\\|x)",
            "posterior": "posterior p(z\\|x)",
            "alignment": "J_align",
            "uniformity": "J_uniform",
            "kl": "J_KL",
            "uncertainty_aware": "uncertainty-aware",
            "paper": "paper",
        }
        return {title: getattr(self, name) for name, title in names.items()}


@dataclass
class Latents:
    """What a method infers from the views; V views of B images, the S standard ones first.

    Attributes:
        embedding: y (V, B, F), the backbone's output.
        mean: the posterior's parameters: μ (V, B, d), unit vectors; DINO: the student's log P (V, B, K).
        target: stop-gradient samples of q(z|x): z (S, B, d), unit vectors; DINO: the teacher's P (S, B, K).
        kappa: κ (V, B).
    """

    embedding: Tensor
    mean: Tensor
    target: Tensor
    kappa: Tensor


@dataclass
class Objective:
    """One step's objective, all per image (mean over pairs of views and images).

    `loss` is what is minimised: minus the sum of the terms that are numbers, plus the κ fit where κ is no
    part of the objective. The terms carry their signs from the paper: larger is better.
    """

    loss: Tensor
    alignment: Tensor | None
    uniformity: Tensor | None
    kl: Tensor | None
    kappa_fit: Tensor | None
    signals: dict[str, Tensor]  # scalars worth watching, detached
    embedding: Tensor  # (V, B, F), detached: what the signs of collapse are computed from
    kappa: Tensor  # (V, B), detached

    def terms(self) -> dict[str, Tensor]:
        """The numbers among the terms, under their Table 1 names."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: named[k] for k in ("alignment", "uniformity", "kl", "kappa_fit") if named[k] is not None}


class Method(nn.Module):
    """A self-supervised method around `model`, a timm model of the zoo with `num_classes=0` and a κ head.

    Subclasses give `row` and `infer`, and those of `alignment`, `uniformity` and `kl` that are numbers.
    """

    name: ClassVar[str]
    row: ClassVar[Row]

    def __init__(self, model: nn.Module):
        super().__init__()
        if getattr(model, "kappa_head", None) is None:
            raise ValueError(f"{type(self).__name__} needs a model with a kappa head (num_classes=0)")
        self.model = model
        self.dim = model.kappa_head.latent_dim

    def infer(self, views: list[Tensor]) -> Latents:
        """Views (V tensors (B, 3, s, s), the standard ones first) to latents."""
        raise NotImplementedError(f"{type(self).__name__} does not define infer")

    def alignment(self, latents: Latents) -> Tensor | None:
        """J_align (Eq. 11), a scalar."""
        return None

    def uniformity(self, latents: Latents) -> Tensor | None:
        """J_uniform (Eq. 12), a scalar, or None where a mechanism stands for it."""
        return None

    def kl(self, latents: Latents) -> Tensor | None:
        """J_KL (Eq. 13), a scalar, or None where it is constant or a mechanism."""
        return None

    def kappa_fit(self, latents: Latents) -> Tensor | None:
        """A loss for the κ head alone, from which no gradient reaches the trunk; None if κ is in J_align."""
        return None

    def signals(self, latents: Latents) -> dict[str, Tensor]:
        """Scalars for the log that tell how the training goes but are no part of the objective."""
        return {}

    def forward(self, views: list[Tensor]) -> Objective:
        """One step's `Objective` for V views of a batch. All of it is computed in float32 or better."""
        latents = self.infer(views)
        with torch.autocast(latents.embedding.device.type, enabled=False):
            terms = [self.alignment(latents), self.uniformity(latents), self.kl(latents)]
            fit = self.kappa_fit(latents)
            loss = -sum(term for term in terms if term is not None)
            if fit is not None:
                loss = loss + fit
            with torch.no_grad():
                signals = self.signals(latents)
        return Objective(loss, *terms, fit, signals, latents.embedding.detach(), latents.kappa.detach())

    def embed(self, views: list[Tensor], model: nn.Module | None = None) -> Tensor:
        """Embeddings y (V, B, F) of the views; those of one resolution share one forward pass."""
        model = self.model if model is None else model
        embeddings: list[Tensor] = []
        for start, stop in _runs([view.shape[-1] for view in views]):
            joined = model(torch.cat(views[start:stop]))
            embeddings += joined.chunk(stop - start)
        return torch.stack(embeddings)

    def on_step_start(self, progress: float) -> None:
        """Called before every optimizer step; `progress` runs from 0 to 1 over the training."""

    def on_step_end(self) -> None:
        """Called after every optimizer step, on every process."""

    def constant_lr_parameters(self) -> list[nn.Parameter]:
        """Parameters whose learning rate may be held constant (SimSiam's predictor)."""
        return []

    def heads(self) -> dict[str, nn.Module]:
        """The networks that training needs and an embedding does not, for `heads.safetensors`."""
        return {}

    def exported_model(self) -> nn.Module:
        """The model to publish (an EMA teacher replaces its student)."""
        return self.model


def unit(x: Tensor) -> Tensor:
    """x / ‖x‖ along the last dimension, in float32 or better whatever autocast made of x."""
    return normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)


def standard_views(views: list[Tensor]) -> int:
    """S, how many of the views have the first one's resolution; they alone are targets."""
    return sum(view.shape[-1] == views[0].shape[-1] for view in views)


def pairs(views: int, targets: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices i, j (T,) of all pairs of a view i and a target j ≠ i: 2 views give 2 terms, 2 + 6 give 14."""
    both = [(i, j) for i in range(views) for j in range(targets) if i != j]
    index = torch.tensor(both, device=device).T
    return index[0], index[1]


def power_spherical_terms(
    latents: Latents, dim: int, *, detach_cosine: bool = False
) -> tuple[Tensor, Tensor]:
    """log p(z_j | x_i) = log C(κ_i) + κ_i log1p(μ_i·z_j) (Eq. 32) for all pairs i ≠ j.

    Args:
        latents: of V views and S targets.
        dim: d, the ambient dimension of the latent sphere.
        detach_cosine: stop the gradient at μ·z, so that κ alone is trained.

    Returns:
        The terms (T, B) and κ_i (T, B) that belongs to each, both with gradient.
    """
    i, j = pairs(len(latents.mean), len(latents.target), latents.mean.device)
    mean = latents.mean.detach() if detach_cosine else latents.mean
    kappa = latents.kappa[i]
    return log_normalizer(kappa, dim) + kappa * log1p_cosine(mean[i], latents.target[j]), kappa


def kappa_fit_loss(latents: Latents, dim: int, weight: float) -> Tensor:
    """-λ/(d-1) · mean log p(z_j | x_i) with everything but the κ head detached: fits κ and nothing else.

    The division makes one λ serve every d: log p grows like d-1.
    """
    terms, _ = power_spherical_terms(latents, dim, detach_cosine=True)
    return -weight / (dim - 1) * terms.mean()


def _runs(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of equal neighbours."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sizes[stop] != sizes[start]:
            yield start, stop
            start = stop
