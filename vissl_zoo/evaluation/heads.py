"""Projector and predictor of an export, run from their tensors: an evaluation knows no method."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

# Linear-BN-ReLU-Linear, and the projector's BN without scale and shift where there is one.
_LAYERS = {"projector": ({0, 1, 3}, {0, 1, 3, 4}), "predictor": ({0, 1, 3},)}


def has_head(heads: Mapping[str, Tensor] | None, name: str) -> bool:
    """Whether an export's tensors hold the MLP `name`, "projector" or "predictor", in a form that `apply_head` runs."""
    layers = {k.split(".")[1] for k in heads or () if k.startswith(f"{name}.")}
    return layers in [{str(layer) for layer in form} for form in _LAYERS[name]]


def apply_head(heads: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """z̃ = projector(y) or m̃ = predictor(z̃), (B, out) of x (B, in), as in evaluation mode; not normalised.

    Raises:
        ValueError: the tensors hold no such MLP, or one of another width.
    """
    if not has_head(heads, name):
        raise ValueError(f"the tensors hold no MLP called {name}")
    here = {
        k.removeprefix(f"{name}."): v.to(x.device, x.dtype) for k, v in heads.items() if k.startswith(name)
    }
    if x.shape[-1] != here["0.weight"].shape[1]:
        raise ValueError(f"the {name} takes {here['0.weight'].shape[1]} features, not {x.shape[-1]}")
    x = F.linear(x, here["0.weight"], here.get("0.bias"))
    x = F.relu(_batch_norm(here, "1", x))
    x = F.linear(x, here["3.weight"], here.get("3.bias"))
    return _batch_norm(here, "4", x) if "4.running_mean" in here else x


def _batch_norm(tensors: Mapping[str, Tensor], layer: str, x: Tensor) -> Tensor:
    statistics = (tensors[f"{layer}.running_mean"], tensors[f"{layer}.running_var"])
    return F.batch_norm(x, *statistics, tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias"))
