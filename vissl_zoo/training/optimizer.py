"""The optimizer of a run: SGD, in one kernel for all parameters where the device has it."""

from __future__ import annotations

import torch

from vissl_zoo.methods import Method
from vissl_zoo.recipes.base import Recipe


def build_optimizer(recipe: Recipe, method: Method, precision: str) -> torch.optim.SGD:
    """SGD with momentum (App. B); with --constant-predictor-lr the predictor is a group of its own.

    In float16 it is not fused: a fused step skips overflowed gradients inside the kernel, where nobody else
    learns of it, and the EMA and the centre would move without the weights.

    Args:
        recipe: the recipe.
        method: on its device, in its dtype.
        precision: "no", "fp16" or "bf16".
    """
    constant = method.constant_lr_parameters() if recipe.constant_predictor_lr else []
    apart = {id(p) for p in constant}
    scheduled = [p for p in method.parameters() if p.requires_grad and id(p) not in apart]
    groups = [{"params": scheduled, "constant_lr": False}]
    if constant:
        groups.append({"params": constant, "constant_lr": True})
    fused = precision != "fp16" and can_fuse(scheduled[0].device, scheduled[0].dtype)
    options = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
    return torch.optim.SGD(groups, lr=0.0, fused=fused or None, **options)  # None: foreach where that pays


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether fused SGD works there, found out by one step of it: some versions refuse only then."""
    try:
        parameter = torch.nn.Parameter(torch.zeros(2, device=device, dtype=dtype))
        parameter.grad = torch.ones_like(parameter)
        torch.optim.SGD([parameter], lr=0.5, momentum=0.9, fused=True).step()
    except (RuntimeError, NotImplementedError):
        return False
    return parameter.detach().eq(-0.5).all().item()
