"""DINO: self-distillation over a categorical latent; its entropy is an uncertainty that came for free.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021; here as §4.3 of the
VI-SimSiam paper reads it (Def. 4.6): prior, inference and posterior on the simplex of K prototypes. Centering
stands for J_uniform (Claim 4.8) and sharpening for J_KL (Claim 4.9). As in the paper the teacher is by default
the student itself behind a stop-gradient; an EMA teacher is offered, and is then what is published.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import (
    Latents,
    Method,
    Row,
    check_choice,
    check_share,
    kappa_fit_loss,
    kappa_weight_for,
    standard_views,
)
from vissl_zoo.networks.ema import ema_momentum_at, ema_update
from vissl_zoo.networks.normalization import all_reduce_sum

Teacher = Literal["shared", "ema"]


@dataclass
class DINOLatents(Latents):
    """`mean` holds log P_s (V, B, K), `target` P_t (S, B, K), and `z` the teacher's bottleneck (S, B, b)."""

    z: Tensor = None


class DINO(Method):
    """DINO around a model of the zoo that has a prototype head.

    Args:
        model: backbone with `prototype_head` (L2-normalised bottleneck, weight-normed prototypes, centre) and
            a κ head over the bottleneck's sphere.
        teacher: "shared" (the paper's) or "ema".
        student_temperature: τ_θ; the teacher's τ_φ belongs to the prototype head.
        center_momentum: of the centre c, moved once per optimizer step by the global batch's mean.
        ema_momentum: of the EMA teacher at the start; it rises to 1 along a cosine.
        kappa_weight: λ of the κ head's own loss, from which no gradient reaches the trunk; None: by the κ map.

    Raises:
        ValueError: for an unknown teacher, a temperature that is not positive or a momentum outside [0, 1].
    """

    name = "dino"
    row = Row(
        method="DINO",
        section="§4.3",
        paper="ICCV 2021",
        latent_space="simplex",
        prior="uniform",
        inference="Categorical",
        posterior="Categorical",
        alignment="Σ P_t log P_s",
        uniformity="centering",
        kl="sharpening",
        uncertainty_aware="yes (entropy)",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        teacher: Teacher = "shared",
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        ema_momentum: float = 0.996,
        kappa_weight: float | None = None,
    ):
        check_choice("teacher", teacher, Teacher)
        check_share("center_momentum", center_momentum)
        check_share("ema_momentum", ema_momentum)
        if not student_temperature > 0:
            raise ValueError(f"student_temperature must be positive, not {student_temperature}")
        super().__init__(model)
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.ema_momentum = self._momentum_now = ema_momentum
        self.kappa_weight = kappa_weight_for(model, kappa_weight)
        self.teacher = None
        if teacher == "ema":
            self.teacher = copy.deepcopy(model).requires_grad_(False)
            self.teacher.kappa_head = None  # one κ head, the model's, fitted to the teacher's embeddings
        # Plain attributes, not buffers: DDP broadcasts buffers, and each process has its own sum.
        self._logit_sum: Tensor | None = None
        self._logit_count = 0

    def infer(self, views: list[Tensor]) -> DINOLatents:
        """log P_s of all views, P_t of the standard ones (Eqs. 4 and 5); z and κ of the teacher."""
        standard = standard_views(views)
        y = self.embed(views)
        z, logits = self._prototypes(self.model.prototype_head, y)
        with torch.no_grad():
            teacher = self.model if self.teacher is None else self.teacher
            if self.teacher is None:
                y_teacher, z_teacher, logits_teacher = y[:standard], z[:standard], logits[:standard]
            else:
                y_teacher = self.embed(views[:standard], teacher)
                z_teacher, logits_teacher = self._prototypes(teacher.prototype_head, y_teacher)
            self._remember(logits_teacher)
            target = teacher.prototype_head.teacher_probabilities(logits_teacher)
        kappa = self.model.kappa_head(y_teacher.detach().flatten(0, 1)).unflatten(0, y_teacher.shape[:2])
        log_probabilities = (logits / self.student_temperature).log_softmax(-1)
        return DINOLatents(
            embedding=y, mean=log_probabilities, target=target, kappa=kappa, z=z_teacher.detach()
        )

    def alignment(self, latents: DINOLatents) -> Tensor:
        """Mean of Σ_k P_t log P_s over the pairs i ≠ j (Eq. 30); minus this is DINO's loss."""
        log_probabilities, target = latents.paired()
        return (target * log_probabilities).sum(-1).mean()

    def kappa_fit(self, latents: DINOLatents) -> Tensor:
        """The κ head learns how well the bottleneck's z of one standard view predicts that of another."""
        sphere = Latents(latents.embedding, mean=latents.z, target=latents.z, kappa=latents.kappa)
        return kappa_fit_loss(sphere, self.dim, self.kappa_weight)

    def signals(self, latents: DINOLatents) -> dict[str, Tensor]:
        """Entropies over log K: of each teacher's P, 1 if all are uniform, and of their mean, 0 if all agree.

        Both are forms of collapse (Caron et al., Fig. 7).
        """
        probabilities = latents.target.flatten(0, 1)
        most = math.log(probabilities.shape[-1])
        return {
            "teacher_entropy": torch.special.entr(probabilities).sum(-1).mean() / most,
            "prototype_entropy": torch.special.entr(probabilities.mean(0)).sum() / most,
        }

    def on_step_start(self, progress: float) -> None:
        """Raise the EMA momentum to 1 along a cosine."""
        self._momentum_now = ema_momentum_at(progress, self.ema_momentum)

    @torch.no_grad()
    def on_step_end(self) -> None:
        """Move the centre and the EMA teacher, once per optimizer step, by the global batch."""
        head = (self.model if self.teacher is None else self.teacher).prototype_head
        if self._logit_count:
            total = all_reduce_sum(
                torch.cat([self._logit_sum, self._logit_sum.new_full((1,), self._logit_count)])
            )
            mean = total[:-1] / total[-1]
            head.center.lerp_(mean.to(head.center.dtype), 1 - self.center_momentum)
            self._logit_sum, self._logit_count = None, 0
        if self.teacher is not None:
            ema_update(self.teacher, self.model, self._momentum_now)

    def exported_model(self) -> nn.Module:
        """The shared network, or the EMA teacher with the κ head that was fitted to it."""
        if self.teacher is None:
            return self.model
        exported = copy.deepcopy(self.teacher)
        exported.kappa_head = copy.deepcopy(self.model.kappa_head)
        return exported

    @staticmethod
    def _prototypes(head: nn.Module, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Unit bottleneck vectors z (V, B, b) and logits (V, B, K) of embeddings (V, B, F), in one pass."""
        z = head.bottleneck(embedding.flatten(0, 1))
        return z.unflatten(0, embedding.shape[:2]), head.logits(z).unflatten(0, embedding.shape[:2])

    def _remember(self, logits: Tensor) -> None:
        """Add the teacher's logits (S, B, K) to the sum that moves the centre at the step's end."""
        flat = logits.detach().flatten(0, 1)
        self._logit_sum = flat.sum(0) if self._logit_sum is None else self._logit_sum + flat.sum(0)
        self._logit_count += len(flat)
