"""Fit a κ head to targets by maximum likelihood of a Power Spherical distribution.

The scale of the input is folded into the first layer afterwards, so the head that is exported reads plain embeddings.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import trange

from vissl_zoo.errors import UserError
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.uncertainty.targets import Targets, best_constant, log_likelihood

BATCH = 1024  # views of one step
CHECKS = 15  # times that the held-out images are looked at
PATIENCE = 5  # of them in a row without a gain end the fit
WEIGHT_DECAY = 0.01
_HELD_OUT_VIEWS = 2**16  # at most, for the choice of the step
_PART = 4096  # views looked at together


class Fit(NamedTuple):
    """How a head was fitted, and what it is worth on the held-out images.

    Attributes:
        log_likelihood, constant_log_likelihood: nats of one view given another, by κ(x) and by the best κ that is the
            same for all images, both over the uniform distribution.
        kappa, agreement: (M,) of views of held-out images: κ, and the mean of log1p(t) with the image's other views.
        step: the one that was kept.
        images, held_out, views: how many; `images` counts the held-out ones too.
    """

    log_likelihood: float
    constant_log_likelihood: float
    kappa: np.ndarray
    agreement: np.ndarray
    step: int
    images: int
    held_out: int
    views: int


def fit_head(
    head: KappaHead,
    embeddings: np.ndarray,
    targets: Targets,
    learnt: np.ndarray,
    *,
    steps: int = 1500,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Train `head`, a fresh one in float32 on the CPU, in place; leave it at the step best on the held-out images.

    Args:
        head: its `latent_dim` d is the embeddings' width.
        embeddings: (N, V, F) float32.
        targets: as measured on them.
        learnt: (N,) bool, the images to learn from; the others are held out, and there is one at least.
        steps: of AdamW with a cosine schedule.
        lr: learning rate.
        seed: of the batches.
        progress: show a bar.

    Raises:
        UserError: the likelihood does not stay finite.
    """
    (images, views, _), dim, rng = embeddings.shape, head.latent_dim, np.random.default_rng(seed)
    learning, held = np.flatnonzero(learnt), np.flatnonzero(~learnt)
    held = held[rng.permutation(len(held))[: max(1, _HELD_OUT_VIEWS // views)]]
    aims = targets.agreement[held].flatten()
    constant = best_constant(targets.agreement[learnt], dim)
    optimizer = _prepare(head, constant, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    checks = {round(steps * (i + 1) / CHECKS) for i in range(CHECKS)}
    kept: tuple[float, int, dict, Tensor] | None = None
    worse = 0
    for step in trange(1, steps + 1, desc="fitting κ", unit="step", disable=not progress, leave=False):
        chosen = rng.choice(learning, BATCH), rng.integers(views, size=BATCH)
        kappa = head.train()(_scaled(embeddings[chosen], targets))
        loss = -log_likelihood(kappa, targets.agreement[chosen], dim).mean() / (dim - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in checks:
            said = _ask(head, embeddings, targets, held)
            value = _mean_log_likelihood(said, aims, dim)
            if not math.isfinite(value):
                what = "the fit does not converge: its likelihood is not finite; lower its learning rate"
                raise UserError(what)
            if kept is None or value > kept[0]:
                kept, worse = (value, step, copy.deepcopy(head.state_dict()), said), 0
            elif (worse := worse + 1) == PATIENCE:
                break
    assert kept is not None  # the last step is one of the checks
    value, step, state, said = kept
    head.load_state_dict(state)
    _fold_scale(head.eval(), targets)
    same = _mean_log_likelihood(torch.full_like(aims, constant), aims, dim)
    return Fit(value, same, said.numpy(), aims.numpy(), step, images, int((~learnt).sum()), views)


def held_out_rows(count: int, share: float, seed: int) -> np.ndarray:
    """(N,) bool, True for the images to learn from; a share of them, one at least, is held out."""
    learnt = np.ones(count, dtype=bool)
    learnt[np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))]] = False
    return learnt


def _prepare(head: KappaHead, constant: float, lr: float) -> torch.optim.Optimizer:
    """Let the head start from the best constant κ: it then has nothing but differences to learn.

    Under softplus the output of the last layer is κ itself, d-1 times what it is under exp.
    """
    last = head.mlp.fc2
    factor = head.latent_dim - 1 if head.kappa_map == "softplus" else 1
    with torch.no_grad():
        last.bias.fill_(_preactivation(head, constant))
        last.weight.mul_(factor)
    first = [p for name, p in head.mlp.named_parameters() if not name.startswith("fc2.")]
    groups = [{"params": first, "lr": lr}, {"params": list(last.parameters()), "lr": lr * factor}]
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)


def _preactivation(head: KappaHead, kappa: float) -> float:
    """u for which the head's map gives κ, within what tanh leaves of the exp map."""
    if head.kappa_map == "exp":
        share = math.log(kappa / (head.latent_dim - 1)) / head.exp_bound
        return head.exp_bound * math.atanh(min(max(share, -0.99), 0.99))
    return kappa + math.log(-math.expm1(-kappa))


def _scaled(embeddings: np.ndarray, targets: Targets) -> Tensor:
    """The head's input while it is fitted: centred embeddings (..., F) over one scale for all."""
    return (torch.from_numpy(np.asarray(embeddings)) - targets.mean) / targets.spread


@torch.no_grad()
def _ask(head: KappaHead, embeddings: np.ndarray, targets: Targets, images: np.ndarray) -> Tensor:
    """κ (M·V,) of all views of some images (M,)."""
    head.eval()
    parts = np.array_split(images, -(-len(images) * embeddings.shape[1] // _PART))
    return torch.cat([head(_scaled(embeddings[part], targets).flatten(0, 1)) for part in parts])


@torch.no_grad()
def _mean_log_likelihood(kappa: Tensor, aims: Tensor, dim: int) -> float:
    parts = zip(kappa.split(_PART), aims.split(_PART), strict=True)
    return float(torch.cat([log_likelihood(said, aim, dim) for said, aim in parts]).mean())


def _fold_scale(head: KappaHead, targets: Targets) -> None:
    """Let the head read embeddings y where it was fitted to (y - m) / spread, as exactly as float32 can.

    fc1(x) = W y / spread - W m / spread, and batch normalisation subtracts constants.
    """
    weight = head.mlp.fc1.weight.detach().double() / targets.spread
    with torch.no_grad():
        head.mlp.fc1.weight.copy_(weight)
        cast(Tensor, head.mlp.norm.running_mean).add_(weight @ targets.mean.double())
