"""Fit a κ head to a target p by cross-entropy on E[t] = κ/(d-1+κ), the mean cosine of its Power Spherical.

The scale of the input is folded into the first layer afterwards, so the head that is exported reads plain embeddings.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, dropout
from tqdm.auto import trange

from vissl_zoo.errors import UserError
from vissl_zoo.networks.kappa_head import KappaHead

BATCH = 512  # images of one step, half of them clean and half as a view
CHECKS = 15  # times that the held-out images are looked at
DROPOUT = 0.5  # of the hidden layer
WEIGHT_DECAY = 0.1
CONSTANT = 1e-3  # a spread below that share of the embeddings' length is the rounding of their arithmetic
_SURE = 1e-3  # p is kept as far from 0 and 1
_PART = 4096  # images looked at together


class Fit(NamedTuple):
    """How a head was fitted, and what it is worth on the held-out images.

    Attributes:
        target: its name.
        cross_entropy, constant_cross_entropy: nats, between p and E[t] of κ(x), and of the best κ that is one for all.
        kappa, aim: (M,) of the held-out clean images: κ, and p.
        step: the one that was kept.
        images, held_out, views: how many; `images` counts the held-out ones too.
    """

    target: str
    cross_entropy: float
    constant_cross_entropy: float
    kappa: np.ndarray
    aim: np.ndarray
    step: int
    images: int
    held_out: int
    views: int


class _Inputs(NamedTuple):
    """Embeddings (N, 1 + V, F) and how they are centred and scaled while a head is fitted."""

    embeddings: np.ndarray
    mean: Tensor
    spread: float

    def __call__(self, images: np.ndarray, columns: np.ndarray | int) -> Tensor:
        """(B, F) of some images, each as its clean image (column 0) or as a view."""
        return (torch.from_numpy(np.asarray(self.embeddings[images, columns])) - self.mean) / self.spread


def fit_head(
    head: KappaHead,
    embeddings: np.ndarray,
    target: Tensor,
    learnt: np.ndarray,
    *,
    steps: int = 600,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Fit:
    """Train `head`, a fresh one in float32 on the CPU, in place; leave it at the step best on the held-out images.

    A view learns what it says itself. A clean image learns the mean of what it says and of what its views say. The
    held-out images are asked as clean images, as all are once the head is fitted.

    Args:
        head: a fresh one.
        embeddings: (N, 1 + V, F) float32, of the clean image first.
        target: (N, 1 + V), p in [0, 1] (see `targets`).
        learnt: (N,) bool, the images to learn from; the others are held out, and there is one at least.
        steps: of AdamW with a cosine schedule.
        lr: learning rate.
        seed: of the batches.
        progress: show a bar.

    Raises:
        UserError: the embeddings are all the same, or the fit does not stay finite.
    """
    images, views, rng = len(embeddings), embeddings.shape[1] - 1, np.random.default_rng(seed)
    learning, held = np.flatnonzero(learnt), np.flatnonzero(~learnt)
    inputs = _centred(embeddings, learning)
    aims = torch.cat([(target[:, :1] + target[:, 1:].mean(dim=1, keepdim=True)) / 2, target[:, 1:]], dim=1)
    aims = aims.float().clamp(_SURE, 1 - _SURE)
    constant = torch.logit(aims[learnt, 0].mean())
    optimizer = _prepare(head, float(constant), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    checks = {round(steps * (i + 1) / CHECKS) for i in range(CHECKS)}
    best, kept = math.inf, (0, head.state_dict(), torch.empty(0))
    hook = head.mlp.act.register_forward_hook(_drop)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of what is dropped
        for step in trange(1, steps + 1, desc="fitting κ", unit="step", disable=not progress, leave=False):
            chosen, columns = rng.choice(learning, BATCH), rng.integers(1, views + 1, size=BATCH)
            columns[: BATCH // 2] = 0
            logit = _logit(head, head.train()(inputs(chosen, columns)))
            loss = binary_cross_entropy_with_logits(logit, aims[chosen, columns])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step in checks:
                kappa = _ask(head, inputs, held)
                value = float(binary_cross_entropy_with_logits(_logit(head, kappa), aims[held, 0]))
                if not math.isfinite(value):
                    raise UserError("the fit does not converge; lower its learning rate")
                if value < best:
                    best, kept = value, (step, copy.deepcopy(head.state_dict()), kappa)
    hook.remove()
    step, state, kappa = kept
    head.load_state_dict(state)
    _fold_scale(head.eval(), inputs)
    same = float(binary_cross_entropy_with_logits(constant.expand(len(held)), aims[held, 0]))
    return Fit("", best, same, kappa.numpy(), aims[held, 0].numpy(), step, images, len(held), views)


def _drop(act: torch.nn.Module, inputs: Any, y: Any) -> Tensor:
    return dropout(y, DROPOUT, act.training)


def held_out_rows(count: int, share: float, seed: int) -> np.ndarray:
    """(N,) bool, True for the images to learn from; a share of them, one at least, is held out."""
    learnt = np.ones(count, dtype=bool)
    learnt[np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))]] = False
    return learnt


def _centred(embeddings: np.ndarray, learning: np.ndarray) -> _Inputs:
    """The embeddings with mean and spread (one number for all F) of the images to learn from and their views."""
    columns = range(embeddings.shape[1])  # one at a time: all may be more than the memory
    mean = np.mean([embeddings[learning, c].mean(axis=0, dtype=np.float64) for c in columns], axis=0)
    variance = np.mean([np.square(embeddings[learning, c] - mean).mean() for c in columns])
    if variance <= CONSTANT**2 * (variance + np.square(mean).mean()):
        raise UserError("the model gives nearly the same embedding for every image: no κ can be fitted to it")
    return _Inputs(embeddings, torch.from_numpy(mean).float(), math.sqrt(variance))


def _logit(head: KappaHead, kappa: Tensor) -> Tensor:
    """logit(E[t]) = log κ/(d-1), which is u of the exp map."""
    return torch.log(kappa / (head.latent_dim - 1))


def _prepare(head: KappaHead, logit: float, lr: float) -> torch.optim.Optimizer:
    """Let the head start from one κ for all: it then has nothing but differences to learn.

    Under softplus the output of the last layer is κ itself, d-1 times what it is under exp.
    """
    last = head.mlp.fc2
    factor = head.latent_dim - 1 if head.kappa_map == "softplus" else 1
    kappa = (head.latent_dim - 1) * math.exp(logit)
    with torch.no_grad():
        last.bias.fill_(logit if head.kappa_map == "exp" else kappa + math.log(-math.expm1(-kappa)))
        last.weight.mul_(factor)
    first = [p for name, p in head.mlp.named_parameters() if not name.startswith("fc2.")]
    groups = [{"params": first, "lr": lr}, {"params": list(last.parameters()), "lr": lr * factor}]
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)


@torch.no_grad()
def _ask(head: KappaHead, inputs: _Inputs, images: np.ndarray) -> Tensor:
    """κ (M,) of some clean images (M,)."""
    head.eval()
    parts = np.array_split(images, -(-len(images) // _PART))
    return torch.cat([head(inputs(part, 0)) for part in parts])


def _fold_scale(head: KappaHead, inputs: _Inputs) -> None:
    """Let the head read embeddings y where it was fitted to (y - m) / spread, as exactly as float32 can.

    fc1(x) = W y / spread - W m / spread, and batch normalisation subtracts constants.
    """
    weight = head.mlp.fc1.weight.detach().double() / inputs.spread
    with torch.no_grad():
        head.mlp.fc1.weight.copy_(weight)
        cast(Tensor, head.mlp.norm.running_mean).add_(weight @ inputs.mean.double())
