"""Weights meet a model. One that has a κ head gets a trained one or an error, never a random one.

timm loads with `strict=False` as soon as the class counts differ, and then keeps the random start of
whatever the file lacks. For a classifier that is the intention; for κ it would be a silent lie.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vissl_zoo.models.representation import HEAD_PREFIXES


def split_heads(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a state dict into the backbone's part and the part of the κ and prototype heads."""
    heads = {k: v for k, v in weights.items() if k.startswith(HEAD_PREFIXES)}
    return {k: v for k, v in weights.items() if k not in heads}, heads


def adapt_classifier(
    weights: dict[str, Tensor], cfg: dict[str, Any], num_classes: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Drop a stored classifier that has not `num_classes` outputs, and make `cfg` tell what is left.

    timm goes by the configuration's class count, which need not be the file's. It would start a fitting classifier at
    random, or refuse the shape of one that does not fit.
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
        RuntimeError: a key is missing, unknown, of another shape or kind of number; the message names them.
    """
    misfit = describe_misfit(split_heads(model.state_dict())[1], heads)
    if misfit:
        raise RuntimeError(
            f"the weights do not fit the κ head of {architecture}: {misfit}. Pass kappa_head=False for the backbone "
            "alone, or the latent_dim and prototypes that the weights were made with"
        )
    model.load_state_dict(heads, strict=False)  # the keys were compared above


def settle_head_args(
    defaults: Mapping[str, Any], stored: Mapping[str, Any], given: Mapping[str, Any], where: str | None
) -> dict[str, Any]:
    """Choose each argument of the heads: what the caller gave, else what the weights say, else the default.

    `where` names the weights that the κ head is loaded from; it is None if there are none.

    Raises:
        RuntimeError: κ would be read with another map, dimension or width than it was fitted with.
    """
    for key in ("latent_dim", "kappa_map", "kappa_hidden") if where is not None else ():
        if given[key] is not None and stored.get(key, given[key]) != given[key]:
            raise RuntimeError(
                f"κ of {where} was made with {key}={stored[key]!r}, not {given[key]!r}: leave {key} out"
            )
    said = {key: stored.get(key, default) for key, default in defaults.items()}
    return {key: said[key] if given[key] is None else given[key] for key in defaults}


def describe_misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Say in one line how weights and a model's `own` state dict differ; None if they do not."""
    problems = {
        "lack": own.keys() - weights.keys(),
        "have unknown": weights.keys() - own.keys(),
        "have another shape of": {k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape},
        "have whole numbers for fractions, or fractions for whole numbers, in": _of_another_kind(
            own, weights
        ),
    }
    found = [f"they {what} {_listed(sorted(keys))}" for what, keys in problems.items() if keys]
    return "; ".join(found) or None


def _of_another_kind(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> set[str]:
    """The keys of both under which one has integers and the other floating numbers: torch would convert them."""
    shared = own.keys() & weights.keys()
    return {k for k in shared if own[k].is_floating_point() != weights[k].is_floating_point()}


def _listed(keys: list[str], limit: int = 4) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def check_backbone_keys(
    model: Any, weights: dict[str, Tensor], new_classifier: bool, architecture: str
) -> None:
    """Refuse weights that lack a part of the backbone, or that are those of a deeper one.

    `new_classifier` says that the classifier's own weights may be missing.

    Raises:
        RuntimeError: keys are missing, unknown or of another kind of number; the message names them.
    """
    own = model.state_dict()
    if wrong := _of_another_kind(own, weights):
        raise RuntimeError(
            f"the weights of {architecture} have whole numbers for fractions, or fractions for whole numbers, in "
            f"{_listed(sorted(wrong))}"
        )
    missing = [k for k in own if k not in weights]
    if missing and new_classifier:
        # What is the classifier's? Whatever goes when timm removes it. The configured names are not the whole
        # of it: LeViT's normalise before the linear layer.
        bare = copy.deepcopy(model)
        bare.reset_classifier(0)
        backbone_keys = bare.state_dict().keys()
        missing = [k for k in missing if k in backbone_keys]
    if missing:
        raise RuntimeError(
            f"the weights lack a part of the backbone of {architecture}: {_listed(missing, 8)}"
        )
    # With a new classifier timm lets unknown keys pass: ResNet-34's first blocks would serve as a ResNet-18.
    heads = {prefix.split(".")[0] for prefix in _configured_classifiers(model.pretrained_cfg)}
    unknown = [k for k in weights if k not in own and k.split(".")[0] not in heads]
    if unknown:
        raise RuntimeError(
            f"the weights are of more than the backbone of {architecture}: {_listed(unknown, 8)}"
        )
