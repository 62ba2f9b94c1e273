"""Build a model of the zoo: timm builds and loads its backbone, the heads are added to it.

The backbone's own timm entrypoint does all that timm can do: arguments, `features_only`, other input
channels, resized position embeddings. It is handed the backbone's weights as a state dict, so registered and
generic names load in one way, and a feature extractor is timm's to the bit. The weights of the heads are
checked strictly here. (Considered: our own subclasses through `build_model_with_cfg`. That serves only
backbones known in advance, and restates the arguments and filters of each entrypoint.)
"""

from __future__ import annotations

from typing import Any

from timm.models import resolve_pretrained_cfg
from torch import nn

from vissl_zoo.models._backbones import backbone_cfg, backbone_entrypoint
from vissl_zoo.models._checkpoint import (
    adapt_classifier,
    check_backbone_keys,
    load_heads_strictly,
    read_weights,
    split_heads,
)
from vissl_zoo.models._representation import device_and_dtype, embedding_width, with_heads
from vissl_zoo.networks.kappa import KappaHead
from vissl_zoo.networks.prototypes import PrototypeHead

_NO_SOURCE = dict.fromkeys(("url", "file", "hf_hub_id", "hf_hub_filename", "source"))


def build_model(
    variant: str,
    backbone: str,
    pretrained: bool = False,
    generic: bool = False,
    prototype_args: dict[str, Any] | None = None,
    /,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: Any = None,
    features_only: bool = False,
    num_classes: int | None = None,
    kappa_head: bool | None = None,
    latent_dim: int = 2048,
    kappa_map: str = "softplus",
    **kwargs: Any,
) -> nn.Module:
    """Build `backbone` under the registered name `variant`, with its heads.

    The first five arguments are positional only: as keywords they would be a user's unknown arguments.

    Args:
        variant: registered name, kept as `pretrained_cfg["architecture"]`.
        backbone: timm's name of the backbone, or "resnet18_cifar".
        pretrained: load the weights that the configuration points at.
        generic: `variant` takes its backbone as an argument, which config.json then has to keep.
        prototype_args: arguments of DINO's prototype head, None for methods without one.
        pretrained_cfg: timm configuration, tag of one, or None for the registered default.
        pretrained_cfg_overlay: entries that replace those of the configuration, such as `file`.
        cache_dir: folder for downloads.
        features_only: return timm's feature extractor, without heads.
        num_classes: outputs of the classifier; None takes the configuration's, 0 is none.
        kappa_head: True or False; None gives a head exactly when there is no classifier.
        latent_dim: ambient dimension d of the sphere that κ lives on.
        kappa_map: "softplus" or "exp".
        **kwargs: passed on to timm's entrypoint.

    Raises:
        ValueError: unknown backbone, or a κ head was asked for without pooling.
        TypeError: an argument that the backbone does not take.
        RuntimeError: weights are missing or do not fit; the message names keys.
    """
    if generic and not pretrained_cfg:
        pretrained_cfg = backbone_cfg(backbone)  # the registered one is that of the default backbone
    overlay = {**(pretrained_cfg_overlay or {}), "architecture": variant}
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, overlay).to_dict()
    if features_only:
        num_classes, kappa_head = 0, False
        kwargs["features_only"] = True
    elif num_classes is None:
        num_classes = cfg.get("num_classes") or 0
    pooled = kwargs.get("global_pool") != ""
    if kappa_head and not pooled:
        raise ValueError("a κ head reads pooled features: it cannot be had with global_pool=''")
    if kappa_head is None:
        kappa_head = num_classes == 0 and pooled

    weights = heads = None
    source = cfg
    if pretrained:
        weights, heads = split_heads(read_weights(cfg, cache_dir))
        weights, source = adapt_classifier(weights, cfg, num_classes)
    source = {**source, **_NO_SOURCE, "state_dict": weights}
    model = _build_backbone(backbone, source, pretrained, num_classes, kwargs)
    _restore_cfg(model, cfg)
    if features_only:
        return model

    if weights is not None:
        new_classifier = num_classes != source.get("num_classes")
        check_backbone_keys(model, weights, new_classifier, variant)
    head = prototype_head = None
    if kappa_head:
        dd = device_and_dtype(model)
        head = KappaHead(embedding_width(model), latent_dim, kappa_map, **dd)
        if prototype_args is not None:
            prototype_head = PrototypeHead(embedding_width(model), **prototype_args, **dd)
    with_heads(model, head, prototype_head)
    if heads is not None and kappa_head:
        load_heads_strictly(model, heads, variant)
    kwargs.pop("pretrained_model_args", None)
    given = {k: v for k, v in kwargs.items() if k not in ("device", "dtype")}
    own = {"num_classes": num_classes, "latent_dim": latent_dim, "kappa_map": kappa_map}
    if generic:
        own["backbone"] = backbone
    model._model_args = {**given, **own, **(prototype_args or {})}
    return model


def _build_backbone(
    backbone: str, cfg: dict[str, Any], pretrained: bool, num_classes: int, kwargs: dict[str, Any]
) -> nn.Module:
    """Build the timm model, with the weights in `cfg["state_dict"]` if `pretrained`."""
    if kwargs.get("features_only"):  # equal class counts make timm load strictly; nothing else checks here
        cfg = {**cfg, "num_classes": 0}
    entrypoint = backbone_entrypoint(backbone)
    return entrypoint(pretrained=pretrained, pretrained_cfg=cfg, num_classes=num_classes, **kwargs)


def _restore_cfg(model: nn.Module, cfg: dict[str, Any]) -> None:
    """Let the model say where its weights came from, and let go of the state dict it was built with.

    A feature extractor and the model inside it both hold a configuration.
    """
    where = {k: cfg[k] for k in _NO_SOURCE if k in cfg}
    for module in model.modules():
        own_cfg = getattr(module, "pretrained_cfg", None)
        if isinstance(own_cfg, dict):
            kept = {k: cfg.get(k, v) for k, v in own_cfg.items() if k != "state_dict"}
            module.pretrained_cfg = module.default_cfg = {**kept, **where}
