"""What all methods share: Table 1 as data, and the objective J = J_align + J_uniform + J_KL (Eq. 10).

A method is an `nn.Module` around one timm model. Its file reads like its column of the paper's Table 1: `Options`,
`row`, then `infer`, `alignment`, `uniformity` and `kl`. What the paper realises by a mechanism and not by a number (a
predictor, centering, a stop-gradient) is named in `row` and is `None` in the objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from vissl_zoo.recipes.recipe import MethodOptions


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

    def paired_kappa(self) -> Tensor:
        """`kappa` of i (T, B) for all pairs."""
        return self.kappa.index_select(0, self.pairs()[0])


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

    Args:
        model: the backbone with its κ head, whose latent dimension is the method's d.
        options: the method's `Options`; by default their defaults.
        **changes: fields of the options by name, in place of those in `options`. Those in `model_options`, such as
            `latent_dim`, are the model's: give them to the model.

    Subclasses give `Options`, `row` and `infer`, and those of `alignment`, `uniformity` and `kl` that are numbers.

    Raises:
        ValueError: the model has no κ head or another value of a model option, or an option has a value that it
            cannot have.
        TypeError: there is no such option.
    """

    name: ClassVar[str]
    row: ClassVar[Row]
    Options: ClassVar[type[MethodOptions]]
    model: Any  # a timm class, which torch's stubs cannot know, with the heads
    dim: int
    options: Any

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__()
        if getattr(model, "kappa_head", None) is None:
            raise ValueError(f"{type(self).__name__} needs a model with a kappa head (num_classes=0)")
        self.model = model
        self.dim = self.model.kappa_head.latent_dim
        built = getattr(model, "_model_args", {})
        for key in changes.keys() & set(self.Options.model_options) & built.keys():
            if changes[key] != built[key]:
                raise ValueError(
                    f"{key} is the model's, {built[key]!r} here: create the model with {key}={changes[key]!r}"
                )
        self.options = replace(self.Options() if options is None else options, **changes)
        check_choices(self.options)

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

    @property
    def kappa_is_detached(self) -> bool:
        """Whether κ is learnt beside the trunk, so that it may be fitted anew once the trunk is trained."""
        return False

    def signals(self, latents: Latents) -> dict[str, Tensor]:
        """Scalars for the log that tell how the training goes but are no part of the objective."""
        return {}

    def forward(self, views: list[Tensor]) -> Objective:
        """One step's `Objective` for V views of a batch. All of it is computed in float32 or better."""
        latents = self.infer(views)
        with torch.autocast(latents.embedding.device.type, enabled=False):
            alignment, uniformity, kl = self.alignment(latents), self.uniformity(latents), self.kl(latents)
            fit = self.kappa_fit(latents)
            terms = [term for term in (alignment, uniformity, kl) if term is not None]
            loss = -torch.stack(terms).sum()
            if fit is not None:
                loss = loss + fit
        return Objective(loss, alignment, uniformity, kl, fit, latents)

    def embed(self, views: list[Tensor], model: Any = None) -> Tensor:
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


def check_choices(options: MethodOptions) -> None:
    """Raise ValueError unless each option that is one of a few words is one of them."""
    for name, kind in get_type_hints(type(options)).items():
        if get_origin(kind) is Literal and getattr(options, name) not in get_args(kind):
            choices, value = ", ".join(get_args(kind)), getattr(options, name)
            raise ValueError(f"{name} must be one of {choices}, not {value!r}")


def check_share(option: str, value: float) -> None:
    """Raise ValueError unless `value` is in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{option} must be in [0, 1], not {value}")


def standard_views(views: list[Tensor]) -> int:
    """S, how many of the views have the first one's resolution; they alone are targets."""
    return sum(view.shape[-1] == views[0].shape[-1] for view in views)


def _runs(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of equal neighbours."""
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sizes[stop] != sizes[start]:
            yield start, stop
            start = stop
