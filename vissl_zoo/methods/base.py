"""What all methods share: Table 1 as data, the objective J = J_align + J_uniform + J_KL (Eq. 10), and the κ fit.

A method is an `nn.Module` around one timm model. Its file reads like its column of the paper's Table 1:
`row`, then `alignment`, `uniformity` and `kl`. What the paper realises by a mechanism and not by a number
(a predictor, centering, a stop-gradient) is named in `row` and is `None` in the objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vissl_zoo.distributions import PowerSpherical
from vissl_zoo.networks.projection import projector


@dataclass(frozen=True)
class Row:
    """One column of the paper's Table 1, in words; the README's table is generated from these."""

    method: str
    section: str
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
            "section": "section of the paper",
            "latent_space": "latent space",
            "prior": "prior p(z)",
            "inference": "inference q(z\\|x)",
            "posterior": "posterior p(z\\|x)",
            "alignment": "J_align",
            "uniformity": "J_uniform",
            "kl": "J_KL",
            "uncertainty_aware": "uncertainty-aware",
            "paper": "first published",
        }
        return {title: getattr(self, name) for name, title in names.items()}


@dataclass
class Latents:
    """What a method infers from the views; V views of B images, the S standard ones first.

    Attributes:
        embedding: y (V, B, F), the backbone's output.
        mean: the posterior's parameters: μ (V, B, d), unit vectors; DINO: the student's log P (V, B, K).
        target: samples of q(z|x): z (S, B, d), unit vectors; DINO: the teacher's P (S, B, K).
        kappa: κ (V, B).
        own_target: each view has a target of its own, `target` (V, B, d), in place of those of all others.
    """

    embedding: Tensor
    mean: Tensor
    target: Tensor
    kappa: Tensor
    own_target: bool = False

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Indices i, j (T,) of all pairs of a view i and its target j: 2 views give 2 terms, 2 + 6 give 14."""
        return _pairs(len(self.mean), len(self.target), self.own_target, self.mean.device)

    def paired(self) -> tuple[Tensor, Tensor]:
        """`mean` of i and `target` of j (T, B, d or K) for all pairs."""
        i, j = self.pairs()
        # Not self.mean[i], whose backward pass sorts the indices on an accelerator.
        return self.mean.index_select(0, i), self.target.index_select(0, j)


@lru_cache  # copying indices to a device makes the host wait for it
def _pairs(views: int, targets: int, own_target: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    both = [(i, j) for i in range(views) for j in range(targets) if (i == j) == own_target]
    with torch.inference_mode(False):  # kept for a training, too
        index = torch.tensor(both, device=device).T
        return index[0], index[1]


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
    latents: Latents  # for the log, which looks at them now and then

    def terms(self) -> dict[str, Tensor]:
        """The numbers among the terms, under their Table 1 names."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: named[k] for k in ("alignment", "uniformity", "kl", "kappa_fit") if named[k] is not None}


class Method(nn.Module, ABC):
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

    @abstractmethod
    def infer(self, views: list[Tensor]) -> Latents:
        """Views (V tensors (B, 3, s, s), the standard ones first) to latents."""

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
        return Objective(loss, *terms, fit, latents)

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


class SphericalMethod(Method):
    """A method whose latent is the direction of a projector's output; κ is fitted beside it.

    Args:
        model: backbone with a κ head; its latent dimension d is the head's.
        hidden: width of the hidden layer of the projector.
        output_norm: batch norm (without scale and shift) on the projector's output.
        kappa_weight: λ of the κ head's own loss, from which no gradient reaches the trunk; None takes
            `KAPPA_WEIGHT` for the head's map.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        hidden: int = 512,
        output_norm: bool = True,
        kappa_weight: float | None = None,
    ):
        super().__init__(model)
        self.projector = projector(model.kappa_head.in_features, hidden, self.dim, output_norm=output_norm)
        self.kappa_weight = kappa_weight_for(model, kappa_weight)

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
        return kappa_fit_loss(latents, self.dim, self.kappa_weight)

    def cosine(self, latents: Latents) -> Tensor:
        """Mean cosine of a view's μ_i and its targets z_j, a scalar."""
        mean, target = latents.paired()
        return (mean * target).sum(-1).mean()

    def signals(self, latents: Latents) -> dict[str, Tensor]:
        """The cosine, which every objective on the sphere is about; 1 at once is a sign of collapse."""
        return {"cosine": self.cosine(latents)}

    def heads(self) -> dict[str, nn.Module]:
        """The projector, and the predictor of a method that has one."""
        names = ("projector", "predictor")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def check_choice(option: str, value: str, choices: Any) -> None:
    """Raise ValueError unless `value` is one of the Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{option} must be one of {', '.join(get_args(choices))}, not {value!r}")


def check_share(option: str, value: float) -> None:
    """Raise ValueError unless `value` is in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{option} must be in [0, 1], not {value}")


def unit(x: Tensor) -> Tensor:
    """x / ‖x‖ along the last dimension, in float32 or better whatever autocast made of x."""
    return normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)


def standard_views(views: list[Tensor]) -> int:
    """S, how many of the views have the first one's resolution; they alone are targets."""
    return sum(view.shape[-1] == views[0].shape[-1] for view in views)


def power_spherical_terms(
    latents: Latents, dim: int, *, detach_cosine: bool = False
) -> tuple[Tensor, Tensor]:
    """log p(z_j | x_i) = log C(κ_i) + κ_i log1p(μ_i·z_j) (Eq. 32) for all pairs of a view and a target.

    Args:
        latents: of V views and S targets.
        dim: d, the ambient dimension of the latent sphere.
        detach_cosine: stop the gradient at μ·z, so that κ alone is trained.

    Returns:
        The terms (T, B) and κ_i (T, B) that belongs to each, both with gradient.
    """
    i, _ = latents.pairs()
    kappa = latents.kappa.index_select(0, i)
    mean, target = latents.paired()
    if detach_cosine:
        mean, target = mean.detach(), target.detach()
    return PowerSpherical(mean, kappa, validate_args=False).log_prob(target), kappa


# λ by κ map. A softplus κ has hundreds of units to travel and needs a push; an exp κ moves by factors, and a push of
# 30 throws it out of its bounds in the first steps (seen: κ at its floor for good, with a cosine of 0.99).
KAPPA_WEIGHT = {"softplus": 30.0, "exp": 1.0}


def kappa_weight_for(model: nn.Module, weight: float | None) -> float:
    """λ as given, or else the one that suits the κ map of the model's head.

    Raises:
        ValueError: it is negative or not a number.
    """
    if weight is None:
        return KAPPA_WEIGHT[model.kappa_head.kappa_map]
    if not weight >= 0:
        raise ValueError(f"kappa_weight must not be negative, and not {weight}")
    return weight


def kappa_fit_loss(latents: Latents, dim: int, weight: float) -> Tensor:
    """-λ/(d-1) · mean log p(z_j | x_i) with everything but κ detached.

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
