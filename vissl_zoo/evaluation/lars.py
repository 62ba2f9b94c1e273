"""LARS: each layer's step is in proportion to the length of its weights (You et al., 2017), as App. B trains with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling, for one layer a parameter or for R independent ones stacked in it.

    For weights w with gradient g (You, Gitman & Ginsburg, "Large batch training of convolutional networks", 2017):

        v ← momentum · v + η ‖w‖ / (‖g‖ + wd ‖w‖) · (g + wd · w),   w ← w − lr · v

    The learning rate multiplies v, as `torch.optim.SGD` does it, and not what is added to v. Biases and other 1-D
    parameters take v ← momentum · v + g: neither adaptation nor decay. A layer whose weights or gradient are all
    zero is not adapted either, since it would never leave zero.

    With `stacked`, the first dimension of every parameter counts R layers that know nothing of each other: each has
    its own norms, and `lr` may give each its own rate, which is how many rates are tried in one pass.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | Tensor,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        stacked: bool = False,
    ):
        """Set up the optimizer.

        Args:
            params: parameters, or groups of them.
            lr: learning rate; with `stacked` also (R,), one for each layer.
            momentum: share of the velocity that is kept.
            weight_decay: wd above.
            trust: η above, the trust coefficient; 0.001 as its authors and SimSiam's linear evaluation have it.
            stacked: the first dimension counts independent layers.

        Raises:
            ValueError: a negative argument, or several rates for layers that are not stacked.
        """
        rates = torch.as_tensor(lr)
        if rates.ndim and not stacked:
            raise ValueError("several learning rates need stacked=True")
        if (rates < 0).any() or min(momentum, weight_decay, trust) < 0:
            raise ValueError("lr, momentum, weight_decay and trust must not be negative")
        names = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, {**names, "stacked": stacked})

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step; returns what `closure` does, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, w: Tensor, group: dict) -> None:
        g = w.grad
        if w.ndim - group["stacked"] > 1:
            axes = tuple(range(int(group["stacked"]), w.ndim))
            decay = group["weight_decay"]
            length = torch.linalg.vector_norm(w, dim=axes, keepdim=True)
            slope = torch.linalg.vector_norm(g, dim=axes, keepdim=True)
            scale = group["trust"] * length / (slope + decay * length)
            g = (g + decay * w if decay else g) * torch.where((length > 0) & (slope > 0), scale, 1.0)
        state = self.state[w]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(w)
        velocity = state["velocity"].mul_(group["momentum"]).add_(g)
        rate = torch.as_tensor(group["lr"], dtype=w.dtype, device=w.device)
        w.addcmul_(rate.view(-1, *[1] * (w.ndim - 1)) if rate.ndim else rate, velocity, value=-1)
