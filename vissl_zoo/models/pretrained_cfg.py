"""Which weights a registered name has: its timm configuration, and the row of the shipped table behind it."""

from __future__ import annotations

from typing import Any

from timm.models import resolve_pretrained_cfg

from vissl_zoo.models.backbones import backbone_cfg
from vissl_zoo.weights import ShippedWeights, shipped

SOURCE_KEYS = ("url", "file", "hf_hub_id", "hf_hub_filename", "source")
"""Entries of a configuration that say where weights are."""


def with_shipped(cfgs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Give names their shipped tags: "name" becomes "name.tag", for each tag in the table's order.

    The first tag of a name is its default. Names that ship nothing stay as they are. A tag of a generic name has the
    layers of its own backbone.
    """
    tagged: dict[str, dict[str, Any]] = {}
    rows = shipped().values()
    for name, cfg in cfgs.items():
        own = [row for row in rows if row.name.split(".")[0] == name]
        for row in own:
            source = {"file": str(row.path), "description": row.description}
            images = {k: tuple(v) if isinstance(v, list) else v for k, v in row.pretrained_cfg.items()}
            base = backbone_cfg(row.model_args["backbone"]) if "backbone" in row.model_args else cfg
            tagged[row.name] = {**base, **images, **source}
        if not own:
            tagged[name] = cfg
    return tagged


def resolve_cfg(
    variant: str, backbone: str | None, pretrained_cfg: Any, overlay: dict[str, Any] | None
) -> dict[str, Any]:
    """The configuration of a model as a dict, timm's rules applied.

    `backbone` is that of a generic name, whose registered configuration is the default backbone's; None for the others.
    An entry of `overlay` that says where weights are replaces every other such entry: beside a shipped file timm would
    overlook a Hub id.

    Raises:
        RuntimeError: the name has no such tag; the message says which it has.
    """
    if backbone is not None and not pretrained_cfg:
        pretrained_cfg = backbone_cfg(backbone)
    overlay = dict(overlay or {})
    if overlay.keys() & {*SOURCE_KEYS, "state_dict"}:
        overlay = {**dict.fromkeys(SOURCE_KEYS), **overlay}
    try:
        return resolve_pretrained_cfg(variant, pretrained_cfg, {**overlay, "architecture": variant}).to_dict()
    except RuntimeError as error:
        tags = ", ".join(name for name in shipped() if name.split(".")[0] == variant) or "none"
        raise RuntimeError(f"{variant} has no tag {pretrained_cfg!r}; names with weights: {tags}") from error


def row_of(cfg: dict[str, Any]) -> ShippedWeights | None:
    """The row of the shipped table that a configuration's weights are, None for any other weights."""
    file = cfg.get("file")
    if not file or cfg.get("source") or cfg.get("state_dict"):
        return None
    return next((row for row in shipped().values() if str(row.path) == str(file)), None)


def has_source(cfg: dict[str, Any]) -> bool:
    """Whether the configuration says where its weights are."""
    return any(cfg.get(key) for key in ("url", "file", "hf_hub_id", "state_dict"))


def no_weights(variant: str) -> str:
    """Say that a name has no weights, and which names have."""
    names = ", ".join(shipped())
    others = f"the names that have some: {names}" if names else "this version of the package ships none"
    return (
        f"No pretrained weights exist for {variant}; {others}. Pass pretrained=False for random ones, or load "
        "an export: local-dir:FOLDER"
    )
