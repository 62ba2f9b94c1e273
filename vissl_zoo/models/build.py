"""Build a model of the zoo: timm builds and loads its backbone, the heads are added to it.

The backbone's own timm entrypoint does all that timm can do: arguments, `features_only`, other input channels, resized
position embeddings. It is handed the backbone's weights as a state dict. So registered and generic names load in one
way, and a feature extractor is timm's to the bit. The weights of the heads are checked strictly here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vissl_zoo.models.backbones import backbone_entrypoint
from vissl_zoo.models.head_weights import (
    adapt_classifier,
    check_backbone_keys,
    describe_misfit,
    load_heads_strictly,
    settle_head_args,
    split_heads,
)
from vissl_zoo.models.pretrained_cfg import SOURCE_KEYS, resolve_cfg, row_of
from vissl_zoo.models.read_weights import read_weights
from vissl_zoo.models.representation import build_kappa_head, device_and_dtype, embedding_width, with_heads
from vissl_zoo.networks.prototype_head import PrototypeHead

HEAD_DEFAULTS = {"latent_dim": 2048, "kappa_map": "softplus", "kappa_hidden": None}
"""Arguments of the heads where neither the method, the caller nor the weights say anything."""
PROTOTYPE_ARGS = ("prototypes", "bottleneck_dim", "teacher_temperature")
"""Further ones of a method that has a prototype head."""
HEAD_ARGS = frozenset((*HEAD_DEFAULTS, *PROTOTYPE_ARGS, "backbone", "kappa_head"))
"""Arguments of the zoo's models that timm's own do not take."""

_NO_SOURCE = dict.fromkeys(SOURCE_KEYS)


def build_model(
    variant: str,
    backbone: str,
    pretrained: bool,
    generic: bool,
    head_defaults: Mapping[str, Any],
    /,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: Any = None,
    features_only: bool = False,
    num_classes: int | None = None,
    kappa_head: bool | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build `backbone` under the registered name `variant`, with its heads.

    The first five arguments are positional only: as keywords they would be a user's unknown arguments. `generic` says
    that `variant` takes its backbone as an argument, which config.json then has to keep. `head_defaults` stand beside
    or in place of `HEAD_DEFAULTS`; a prototype head exists when `prototypes` is among them.

    Args:
        pretrained_cfg: timm configuration, tag of one, or None for the registered default.
        pretrained_cfg_overlay: entries that replace those of the configuration, such as `file`.
        cache_dir: folder for downloads.
        features_only: return timm's feature extractor, without heads.
        num_classes: outputs of the classifier; None takes the configuration's, 0 is none.
        kappa_head: True or False; None gives a head exactly when there is no classifier.
        **kwargs: arguments of the heads, which the weights know if they are an export's or shipped: `latent_dim`, the
            ambient dimension d of κ's sphere, `kappa_map` and `kappa_hidden`. The rest is timm's.

    Raises:
        ValueError: unknown backbone, or a κ head was asked for without pooling.
        TypeError: an argument that the backbone does not take.
        RuntimeError: weights are missing or do not fit; one line that names keys.
    """
    cfg = resolve_cfg(variant, backbone if generic else None, pretrained_cfg, pretrained_cfg_overlay)
    defaults = {**HEAD_DEFAULTS, **head_defaults}
    given = _given_head_args(defaults, kwargs)
    row = row_of(cfg)
    stored = dict(row.model_args) if row else {}
    kwargs = {**{k: v for k, v in stored.items() if k not in (*defaults, "backbone")}, **kwargs}
    num_classes = int(cfg.get("num_classes") or 0) if num_classes is None else num_classes
    if features_only:
        num_classes, kappa_head = 0, False
        kwargs["features_only"] = True
    pooled = kwargs.get("global_pool") != ""
    if kappa_head and not pooled:
        raise ValueError("a κ head reads pooled features: it cannot be had with global_pool=''")
    if kappa_head is None:
        kappa_head = num_classes == 0 and pooled

    weights, heads, source, where = None, None, cfg, ""
    if pretrained:
        checkpoint = read_weights(cfg, cache_dir)
        stored, where = {**stored, **checkpoint.args}, checkpoint.where
        weights, heads = split_heads(checkpoint.weights)
        weights, source = adapt_classifier(weights, cfg, num_classes)
    # Without weights and without a tag it is a method's to train, with the method's heads and not those of a fit.
    known = stored if pretrained or pretrained_cfg is not None else {}
    head_args = settle_head_args(defaults, known, given, where if kappa_head and pretrained else None)
    source = {**source, **_NO_SOURCE, "state_dict": weights}
    model = _build_backbone(backbone, source, num_classes, kwargs, where, variant)
    _restore_cfg(model, cfg)
    if features_only:
        return model

    if weights is not None:
        check_backbone_keys(model, weights, num_classes != source.get("num_classes"), variant)
    _add_heads(model, head_args if kappa_head else None)
    if heads is not None and kappa_head:
        load_heads_strictly(model, heads, variant)
    timm_args = {k: v for k, v in kwargs.items() if k not in ("device", "dtype", "pretrained_model_args")}
    own = {"num_classes": num_classes, **({"backbone": backbone} if generic else {})}
    model._model_args = {**timm_args, **own, **head_args}
    return model


def _given_head_args(defaults: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take what the caller says of the heads out of `kwargs`; None for what is left open.

    κ lives on the sphere of a prototype head's bottleneck: `latent_dim` and `bottleneck_dim` name one number.
    """
    given = {key: kwargs.pop(key, None) for key in defaults}
    if "bottleneck_dim" in defaults:
        latent, bottleneck = given["latent_dim"], given["bottleneck_dim"]
        if None not in (latent, bottleneck) and latent != bottleneck:
            raise ValueError(
                f"latent_dim={latent} and bottleneck_dim={bottleneck} must agree: they are one sphere"
            )
        given["latent_dim"] = given["bottleneck_dim"] = bottleneck or latent
        defaults["latent_dim"] = defaults["bottleneck_dim"]
    return given


def _add_heads(model: nn.Module, args: dict[str, Any] | None) -> None:
    """Give the model its κ head, and a prototype head where the arguments tell of one; None for neither."""
    head = prototype_head = None
    if args is not None:
        head = build_kappa_head(model, args)
        if "prototypes" in args:
            own = {key: args[key] for key in PROTOTYPE_ARGS}
            prototype_head = PrototypeHead(embedding_width(model), **own, **device_and_dtype(model))
    with_heads(model, head, prototype_head)


def _build_backbone(
    backbone: str, cfg: dict[str, Any], num_classes: int, kwargs: dict[str, Any], where: str, variant: str
) -> Any:
    """Build the timm model, with the weights in `cfg["state_dict"]` if there are any; `where` is their file."""
    if kwargs.get("features_only"):  # equal class counts make timm load strictly; nothing else checks here
        cfg = {**cfg, "num_classes": 0}
    entrypoint = backbone_entrypoint(backbone)
    weights = cfg["state_dict"]
    args = {"pretrained_cfg": cfg, "num_classes": num_classes, **kwargs}
    if weights is None:
        return entrypoint(pretrained=False, **args)
    try:
        return entrypoint(pretrained=True, **args)
    except (RuntimeError, KeyError, AttributeError, NotImplementedError):
        # torch lists every key on a line of its own, and timm's filters trip over foreign keys in their ways.
        wrapping = ("features_only", "out_indices", "feature_cls")
        args = {k: v for k, v in args.items() if k not in wrapping}
        bare = entrypoint(pretrained=False, **{**args, "in_chans": (cfg.get("input_size") or (3,))[0]})
        misfit = describe_misfit(bare.state_dict(), weights)
        if misfit is None:
            raise
        raise RuntimeError(f"the weights in {where} are not those of {variant}: {misfit}") from None


def _restore_cfg(model: Any, cfg: dict[str, Any]) -> None:
    """Let the model say where its weights came from, and let go of the state dict it was built with.

    A feature extractor and the model inside it both hold a configuration.
    """
    where = {k: cfg[k] for k in _NO_SOURCE if k in cfg}
    for module in model.modules():
        own_cfg = getattr(module, "pretrained_cfg", None)
        if isinstance(own_cfg, dict):
            kept = {k: cfg.get(k, v) for k, v in own_cfg.items() if k != "state_dict"}
            module.pretrained_cfg = module.default_cfg = {**kept, **where}
