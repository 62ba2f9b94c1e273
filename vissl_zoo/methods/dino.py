"""DINO: self-distillation over a categorical latent; its entropy is an uncertainty that came for free.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021; here as §4.3 of the VI-SimSiam
paper reads it (Def. 4.6). Prior, inference and posterior live on the simplex of K prototypes. Centering stands for
J_uniform (Claim 4.8) and sharpening for J_KL (Claim 4.9). As in the paper the teacher is by default the student itself
behind a stop-gradient; an EMA teacher is offered, and is then what is published.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vissl_zoo.methods.base import Latents, Method, Row, check_share, standard_views
from vissl_zoo.methods.spherical import kappa_fit_loss, kappa_weight_for
from vissl_zoo.networks.batch_norm import all_reduce_sum
from vissl_zoo.networks.ema import ema_momentum_at, ema_update
from vissl_zoo.networks.prototype_head import PrototypeHead
from vissl_zoo.recipes import NOT_MEASURED, MethodOptions, cifar10, imagenet100


@dataclass(frozen=True)
class Options(MethodOptions):
    """DINO's own options."""

    name = "dino"
    model_options = ("prototypes", "bottleneck_dim", "teacher_temperature", "kappa_map")

    prototypes: int = 2048
    """K, the number of categories of the latent."""
    bottleneck_dim: int = 256
    """Dimension of the L2-normalised bottleneck before the prototypes."""
    teacher_temperature: float = 0.04
    """τ_φ, which sharpens the teacher."""
    kappa_map: Literal["softplus", "exp"] = "softplus"
    """How the κ head's output becomes positive."""
    teacher: Literal["shared", "ema"] = "shared"
    """The teacher: the student itself behind a stop-gradient, as in the paper, or its moving average."""
    student_temperature: float = 0.1
    """τ_θ of the student."""
    center_momentum: float = 0.9
    """Momentum of the centre, moved once per optimizer step by the global batch's mean."""
    ema_momentum: float = 0.996
    """Momentum of the EMA teacher at the start; it rises to 1 along a cosine."""
    kappa_weight: float | None = None
    """λ, the weight of κ's own loss, which never reaches the trunk; None: 30 for the softplus map, 1 for exp."""


@dataclass
class DINOLatents(Latents):
    """`mean` holds log P_s (V, B, K), `target` P_t (S, B, K), and `z` the teacher's bottleneck (S, B, b)."""

    z: Tensor = field(kw_only=True)


class DINO(Method):
    """DINO around a model of the zoo that has a prototype head, and a κ head over the bottleneck's sphere.

    Arguments as in Method.
    """

    name = "dino"
    Options = Options
    options: Options
    teacher: Any  # an EMA of the model, or None
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

    def __init__(self, model: nn.Module, options: MethodOptions | None = None, **changes: Any):
        super().__init__(model, options, **changes)
        check_share("center_momentum", self.options.center_momentum)
        check_share("ema_momentum", self.options.ema_momentum)
        if not self.options.student_temperature > 0:
            raise ValueError(f"student_temperature must be positive, not {self.options.student_temperature}")
        self._momentum_now = self.options.ema_momentum
        self.kappa_weight = kappa_weight_for(model, self.options.kappa_weight)
        self.teacher = None
        if self.options.teacher == "ema":
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
        log_probabilities = (logits / self.options.student_temperature).log_softmax(-1)
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
        return kappa_fit_loss(sphere, self.kappa_weight)

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
        self._momentum_now = ema_momentum_at(progress, self.options.ema_momentum)

    @torch.no_grad()
    def on_step_end(self) -> None:
        """Move the centre and the EMA teacher, once per optimizer step, by the global batch."""
        head = (self.model if self.teacher is None else self.teacher).prototype_head
        if self._logit_sum is not None:
            total = all_reduce_sum(
                torch.cat([self._logit_sum, self._logit_sum.new_full((1,), self._logit_count)])
            )
            mean = total[:-1] / total[-1]
            head.center.lerp_(mean.to(head.center.dtype), 1 - self.options.center_momentum)
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
    def _prototypes(head: PrototypeHead, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Unit bottleneck vectors z (V, B, b) and logits (V, B, K) of embeddings (V, B, F), in one pass."""
        z = head.bottleneck(embedding.flatten(0, 1))
        return z.unflatten(0, embedding.shape[:2]), head.logits(z).unflatten(0, embedding.shape[:2])

    def _remember(self, logits: Tensor) -> None:
        """Add the teacher's logits (S, B, K) to the sum that moves the centre at the step's end."""
        flat = logits.detach().flatten(0, 1)
        self._logit_sum = flat.sum(0) if self._logit_sum is None else self._logit_sum + flat.sum(0)
        self._logit_count += len(flat)


# With the paper's shared teacher and batches of 64 its P stays near uniform (entropy 0.91 of log K after four epochs,
# 0.66 with an EMA teacher), and 12 epochs at 32 pixels gave a kNN top-1 of 0.34.
RECIPES = (
    cifar10(
        Options(teacher="ema"),
        "DINO on CIFAR-10 with the paper's temperatures and an EMA teacher, at 64 pixels.",
        cost=f"8 minutes of one H200, shared with other trainings, for 50 epochs; 200 epochs: {NOT_MEASURED}",
        expected="kNN top-1 0.60, AUROC of κ 0.62 after 50 epochs, of CIFAR-10 as JPEG of quality 75; "
        f"200 epochs: {NOT_MEASURED}",
        batch_size=256,
        lr=0.1,
        lr_batch_size=64,
        warmup_epochs=1,
    ),
    imagenet100(
        Options(),
        "DINO as the paper trains it on ImageNet-100 (App. B): no momentum teacher.",
        cost="four V100 in the paper",
        expected=f"the paper's Table 9: linear top-1 76.30 at 200 epochs; {NOT_MEASURED}",
        batch_size=64,
        lr=0.03,
        lr_batch_size=64,
    ),
)
