"""Fit a κ head to the agreement of views by maximum likelihood of a Power Spherical distribution.

Measured on the two cases of `vissl_zoo.fitting.agreement`, AUROC of κ on shapes and CIFAR-10; the defaults give .702
and .578 with width 96, that of the embedding:

    (none of these differences is beyond chance, see there; none was made with `PATIENCE`)
    exp → softplus (which wants its last layer's learning rate times d-1)     .706 .577
    width 32, 512 instead of 96                                               .692 .701   .577 .579
    learning rate 3e-4, 3e-3 instead of 1e-3                                  .695 .704   .574 .577
    batches of 256 instead of 1,024                                           .692 .576
    4,500 steps instead of 1,500                                              .694 .578
    standardised, whitened input instead of one scale for all                 .699 .683   (shapes)

The input's scale is folded into the first layer afterwards, so the head that is exported reads plain embeddings.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import trange

from vissl_zoo.distributions import log_normalizer
from vissl_zoo.errors import UserError
from vissl_zoo.fitting.agreement import Agreement
from vissl_zoo.fitting.view_features import ViewFeatures
from vissl_zoo.networks.kappa_head import KappaHead

BATCH = 1024  # views of one step
CHECKS = 15  # times that the held-out images are looked at
PATIENCE = (
    5  # of them in a row without a gain end the fit: with 2 views of 8,192 images the best was step 100
)
WEIGHT_DECAY = 0.01
_HELD_OUT_VIEWS = 2**16  # at most, for the choice of the step


class Fit(NamedTuple):
    """A fitted head and what it is worth on the held-out images.

    Attributes:
        log_likelihood, constant_log_likelihood: nats of one view given another, by κ(x) and by the best κ that is the
            same for all images, both against the uniform distribution.
        kappa, agreement: (M,) of views of held-out images: κ, and the mean of log1p(t) with the image's other views.
        step: of `steps`, the one that was kept.
    """

    log_likelihood: float
    constant_log_likelihood: float
    kappa: np.ndarray
    agreement: np.ndarray
    step: int


def mean_log_likelihood(kappa: Tensor, log1p_cosine: Tensor, dim: int) -> Tensor:
    """Mean of log C(κ) + κ log1p(t) (Eq. 33) over (B,) views, nats, float64."""
    return (log_normalizer(kappa, dim) + kappa.double() * log1p_cosine).mean()


def best_constant(log1p_cosine: Tensor, dim: int) -> float:
    """The κ, one for all, of greatest likelihood; between (d-1)e^-7 and (d-1)e^7 as the exp map."""
    mean, low, high = float(log1p_cosine.mean()), -7.0, 7.0
    for _ in range(60):  # the likelihood is concave in κ: bisect its slope in log κ
        middle = (low + high) / 2
        kappa = torch.tensor((dim - 1) * math.exp(middle), dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(log_normalizer(kappa, dim) + kappa * mean, kappa)[0]
        low, high = (middle, high) if slope > 0 else (low, middle)
    return (dim - 1) * math.exp((low + high) / 2)


def fit_head(
    head: KappaHead,
    features: ViewFeatures,
    agreement: Agreement,
    fitted: Tensor,
    *,
    steps: int = 1500,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Train `head`, a fresh one in float32 on the CPU, in place; leave it at the step best on the held-out images.

    Args:
        head: its `latent_dim` d is the features' width.
        features: (N, V, F).
        agreement: as measured on them.
        fitted: (N,) bool, the images to learn from; the others are held out, and there is one at least.
        steps: of AdamW with a cosine schedule.
        lr: learning rate.
        seed: of the batches.
        progress: show a bar.

    Raises:
        UserError: the likelihood does not stay finite.
    """
    dim, rng = head.latent_dim, np.random.default_rng(seed)
    learnt, held = (np.flatnonzero(mask.numpy()) for mask in (fitted, ~fitted))
    held = held[rng.permutation(len(held))[: max(1, _HELD_OUT_VIEWS // features.views)]]
    target = agreement.log1p_cosine
    inputs = torch.cat([_scaled(features.read(part), agreement) for part in np.array_split(held, CHECKS)])
    inputs, aims = inputs.flatten(0, 1), target[held].flatten()
    constant = best_constant(target[learnt], dim)
    with torch.no_grad():
        bias = head.mlp.fc2.bias  # from the best constant on, the head has nothing but differences to learn
        bias.fill_(_preactivation(head, constant))
        if head.kappa_map == "softplus":
            head.mlp.fc2.weight.mul_(dim - 1)
    optimizer = torch.optim.AdamW(_groups(head, lr), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    checks = {round(steps * (i + 1) / CHECKS) for i in range(CHECKS)}
    best, state, kept, kappa, worse = -math.inf, None, 0, None, 0
    for step in trange(1, steps + 1, desc="fitting κ", unit="step", disable=not progress, leave=False):
        images, views = rng.choice(learnt, BATCH), rng.integers(features.views, size=BATCH)
        x = _scaled(features.read(images, views), agreement)
        loss = -mean_log_likelihood(head.train()(x), target[images, views], dim) / (dim - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in checks:
            with torch.no_grad():
                said = torch.cat([head.eval()(part) for part in inputs.split(4096)])
                value = float(mean_log_likelihood(said, aims, dim))
            if not math.isfinite(value):
                raise UserError(
                    "the fit does not converge: its likelihood is not finite; lower its learning rate"
                )
            if value > best or state is None:
                best, state, kept, kappa = value, copy.deepcopy(head.state_dict()), step, said.numpy()
                worse = 0
            elif (worse := worse + 1) == PATIENCE:
                break
    head.load_state_dict(state)
    _fold_scale(head.eval(), features.offset.double(), agreement)
    uniform = float(log_normalizer(torch.zeros((), dtype=torch.float64), dim))
    same = torch.full_like(aims, constant)
    return Fit(
        best - uniform, float(mean_log_likelihood(same, aims, dim)) - uniform, kappa, aims.numpy(), kept
    )


def _scaled(features: Tensor, agreement: Agreement) -> Tensor:
    """The head's input while it is fitted: features less their offset, over one scale for all."""
    return features / agreement.spread


def _preactivation(head: KappaHead, kappa: float) -> float:
    """u for which the head's map gives κ, within what tanh leaves of the exp map."""
    if head.kappa_map == "exp":
        share = math.log(kappa / (head.latent_dim - 1)) / head.exp_bound
        return head.exp_bound * math.atanh(min(max(share, -0.99), 0.99))
    return kappa + math.log(-math.expm1(-kappa))


def _groups(head: KappaHead, lr: float) -> list[dict]:
    """Parameter groups: under softplus the last layer's output is κ itself, d-1 times what it is under exp."""
    last = list(head.mlp.fc2.parameters())
    first = [p for name, p in head.mlp.named_parameters() if not name.startswith("fc2.")]
    factor = head.latent_dim - 1 if head.kappa_map == "softplus" else 1
    return [{"params": first, "lr": lr}, {"params": last, "lr": lr * factor}]


def _fold_scale(head: KappaHead, offset: Tensor, agreement: Agreement) -> None:
    """Let the head read embeddings y where it was fitted to (y - offset) / spread, as exactly as float32 can.

    fc1(x) = W y / spread - W offset / spread, and batch normalisation subtracts constants.
    """
    linear, norm = head.mlp.fc1, head.mlp.norm
    weight = linear.weight.detach().double() / agreement.spread
    with torch.no_grad():
        linear.weight.copy_(weight)
        norm.running_mean.add_(weight @ offset)


def held_out_rows(count: int, share: float, seed: int) -> Tensor:
    """(N,) bool, True for the images to learn from; a share of them, one at least, is held out."""
    kept = torch.ones(count, dtype=torch.bool)
    chosen = np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))]
    kept[torch.from_numpy(chosen)] = False
    return kept
