"""Reading weights. A model that has a κ head gets a trained one or an error, never a random one.

timm loads with `strict=False` as soon as the class counts differ, and then keeps the random start of
whatever the file lacks. For a classifier that is the intention; for κ it would be a silent lie.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from timm.models import load_pretrained
from torch import Tensor, nn

from vissl_zoo.models._representation import HEAD_NAMES


def read_weights(cfg: dict[str, Any], cache_dir=None) -> dict[str, Tensor]:
    """Read the tensors that a timm pretrained configuration points at: file, folder, hub, URL or dict.

    timm's own loader does the reading; a filter takes the tensors before they meet a model.

    Raises:
        RuntimeError: the configuration names no weights, or they cannot be read.
    """
    weights: dict[str, Tensor] = {}

    def take(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        weights.update(state_dict)
        return {}

    cfg = {**cfg, "first_conv": None, "classifier": None, "custom_load": False}
    if (
        cfg.get("source") == "local-dir"
    ):  # an export also holds heads.safetensors, which timm 1.0.20 trips over
        file = Path(cfg["file"]) / "model.safetensors"
        if file.exists():
            cfg |= {"source": "", "file": str(file)}
    load_pretrained(nn.Module(), cfg, filter_fn=take, strict=False, cache_dir=cache_dir)
    return weights


def split_heads(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a state dict into the backbone's part and the part of the κ and prototype heads."""
    heads = {k: v for k, v in weights.items() if k.startswith(tuple(f"{n}." for n in HEAD_NAMES))}
    return {k: v for k, v in weights.items() if k not in heads}, heads


def adapt_classifier(
    weights: dict[str, Tensor], cfg: dict[str, Any], num_classes: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Drop a stored classifier that has not `num_classes` outputs, and make `cfg` tell what is left.

    timm goes by the configuration's class count, which need not be that of a file that was laid over it:
    it would start a fitting classifier at random, or refuse the shape of one that does not fit.

    Returns:
        The weights, and the configuration with the class count that makes timm keep or replace them.
    """
    prefixes = _configured_classifiers(cfg)
    for prefix in prefixes:
        weight = weights.get(f"{prefix}weight")
        if weight is not None and weight.shape[0] != num_classes:
            weights = {k: v for k, v in weights.items() if not k.startswith(prefix)}
    if any(k.startswith(prefixes) for k in weights):
        cfg = {**cfg, "num_classes": num_classes}
    return weights, cfg


def _configured_classifiers(cfg: dict[str, Any]) -> tuple[str, ...]:
    names = cfg.get("classifier") or ()
    return tuple(f"{n}." for n in ((names,) if isinstance(names, str) else names))


def load_heads_strictly(model: nn.Module, heads: dict[str, Tensor], architecture: str) -> None:
    """Load the κ (and prototype) head of a model that has one.

    Raises:
        RuntimeError: a key is missing, unknown or of another shape; the message names them.
    """
    own = split_heads(model.state_dict())[1]
    problems = {
        "lack": own.keys() - heads.keys(),
        "have unknown": heads.keys() - own.keys(),
        "have another shape of": {k for k in own.keys() & heads.keys() if own[k].shape != heads[k].shape},
    }
    if any(problems.values()):
        found = "; ".join(f"they {what} {', '.join(sorted(keys))}" for what, keys in problems.items() if keys)
        raise RuntimeError(
            f"the weights do not fit the κ head of {architecture}: {found}. Pass kappa_head=False for the "
            "backbone alone, or the latent_dim and prototypes that the weights were made with"
        )
    model.load_state_dict(heads, strict=False)  # the keys were compared above


def check_backbone_keys(
    model: nn.Module, weights: dict[str, Tensor], new_classifier: bool, architecture: str
) -> None:
    """Refuse weights that lack a part of the backbone.

    Args:
        model: the timm model, before it gets its heads.
        weights: the backbone's part of what was loaded.
        new_classifier: whether the classifier's own weights may be missing.
        architecture: name for the message.

    Raises:
        RuntimeError: keys are missing; the message names them.
    """
    missing = [k for k in model.state_dict() if k not in weights]
    if missing and new_classifier:
        # What is the classifier's? Whatever goes when timm removes it. The configured names are not the whole
        # of it: LeViT's normalise before the linear layer.
        bare = copy.deepcopy(model)
        bare.reset_classifier(0)
        backbone_keys = bare.state_dict().keys()
        missing = [k for k in missing if k in backbone_keys]
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise RuntimeError(f"the weights lack a part of the backbone of {architecture}: {shown}")
