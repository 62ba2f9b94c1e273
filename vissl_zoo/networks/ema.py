"""Exponential moving averages of networks: the EMA teacher of DINO and the target network of BYOL."""

from __future__ import annotations

import math

import torch
from torch import nn


def ema_momentum_at(progress: float, start: float) -> float:
    """The momentum at `progress` in [0, 1] of the training: from `start` to 1 along a cosine (BYOL, Eq. 1)."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


@torch.no_grad()
def ema_update(average: nn.Module, online: nn.Module, momentum: float) -> None:
    """Move every parameter of `average` towards its namesake in `online`, in place.

    Buffers are left alone: the batch norms of a target network keep statistics of their own.
    """
    parameters = dict(online.named_parameters())
    for name, parameter in average.named_parameters():
        parameter.lerp_(parameters[name], 1 - momentum)
