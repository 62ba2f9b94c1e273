"""What every model of the zoo adds to its timm class: a κ head and the call that reads it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor, nn

from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.networks.prototype_head import PrototypeHead

HEAD_NAMES = ("kappa_head", "prototype_head")
HEAD_PREFIXES = tuple(f"{name}." for name in HEAD_NAMES)


class Representation(NamedTuple):
    """What a model knows about each image of a batch, and how sure it is.

    Attributes:
        embedding: (B, F) pooled features, what `model(x)` returns when `num_classes=0`.
        kappa: (B,) concentration κ > 0 of the posterior, float32 also under autocast; higher = surer.
        uncertainty: (B,) in [0, 1], float32, higher = less certain: (d-1)/(d-1+κ) on the sphere, and the
            normalised entropy H(P)/log K of the teacher's categorical for DINO.
    """

    embedding: Tensor
    kappa: Tensor
    uncertainty: Tensor


class Represents(Protocol):
    """A `torch.nn.Module` with a κ head and the call that reads it.

    Attributes:
        kappa_head: the module that gives κ; None where it was taken off, and then `represent` raises.
    """

    kappa_head: nn.Module | None

    def represent(self, x: Tensor) -> Representation:
        """Embed images x (B, 3, H, W), normalised as for `forward`, and say how certain each one is."""
        ...


class RepresentationMixin:
    """The κ-bearing half of a model; the other half is timm's own class, untouched.

    `kappa_head` and `prototype_head` are modules, or None. `forward` is timm's and never runs them, so it
    returns one tensor and still scripts, compiles and exports. (No annotation here: TorchScript would
    compile it.)
    """

    if TYPE_CHECKING:  # what timm's class brings, and `with_heads`

        def __getattr__(self, name: str) -> Any: ...

    def represent(self, x: Tensor) -> Representation:
        """Embed images x (B, C, H, W), preprocessed as for `forward`, and say how certain each one is.

        Raises:
            RuntimeError: the model has no κ head.
        """
        if self.kappa_head is None:
            raise RuntimeError(
                "this model has no κ head, so it cannot say how certain it is: create it with num_classes=0 "
                "or kappa_head=True (and pooling on), or call vissl_zoo.add_kappa_head(model) and train it"
            )
        embedding = self.forward_head(self.forward_features(x), pre_logits=True)
        return certainty(embedding, self.kappa_head, self.prototype_head)

    def reset_classifier(self, num_classes, global_pool=None, *args, kappa_head=False, **kwargs):
        """Replace the classifier as timm does, and drop the heads of a model that is to be fine-tuned.

        Args:
            num_classes: outputs of the new classifier; 0 for none.
            global_pool: kind of pooling, kept when None.
            *args: further arguments of the timm class (ConvNeXt's `reset_other`).
            kappa_head: keep an existing κ head beside a classifier. It is never added here: a head that
                the loss does not reach stops DistributedDataParallel.
            **kwargs: further keyword arguments of the timm class.
        """
        if global_pool is None and not args:  # some timm versions default to "avg" and would not take None
            self.timm_class.reset_classifier(self, num_classes, **kwargs)
        else:
            self.timm_class.reset_classifier(self, num_classes, global_pool, *args, **kwargs)
        if self.kappa_head is None:
            return
        usable = global_pool != "" and embedding_width(self) == self.kappa_head.in_features
        if not usable or (num_classes > 0 and not kappa_head):
            self.kappa_head = self.prototype_head = None

    def __reduce_ex__(self, protocol):
        """Copy and pickle by naming timm's class, since ours is made when it is needed."""
        _, _, *state = super().__reduce_ex__(2)
        return (_new_instance, (self.timm_class,), *state)


def certainty(embedding: Tensor, kappa_head: Any, prototype_head: Any) -> Representation:
    """What a model's heads say of embeddings (B, F); `prototype_head` may be None."""
    kappa = kappa_head(embedding)
    if prototype_head is None:
        uncertainty = kappa_head.uncertainty(kappa)
    else:
        uncertainty = prototype_head.uncertainty(embedding)
    return Representation(embedding, kappa, uncertainty)


@cache
def represented_class(timm_class: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of `timm_class` that has `represent`, always the same one for the same class."""
    namespace = {
        "__module__": __name__,
        "__doc__": f"timm's {timm_class.__name__} with a κ head and `represent`.",
        # Own copy: TorchScript reads its constants here, and Python would otherwise show it an empty dict.
        "__annotations__": dict(getattr(timm_class, "__annotations__", {})),
        "timm_class": timm_class,
    }
    return type(f"Representation{timm_class.__name__}", (RepresentationMixin, timm_class), namespace)


def _new_instance(timm_class: type[nn.Module]) -> nn.Module:
    cls = represented_class(timm_class)
    return cls.__new__(cls)


def with_heads(
    model: Any, kappa_head: KappaHead | None, prototype_head: PrototypeHead | None = None
) -> nn.Module:
    """Turn a timm model, in place, into one that has `represent` and the given heads; return it.

    The class of the instance changes to a subclass of its own; parameters, buffers and `forward` do not.
    """
    if not issubclass(type(model), RepresentationMixin):
        model.__class__ = represented_class(type(model))
    model.kappa_head, model.prototype_head = kappa_head, prototype_head
    return model


def add_kappa_head(
    model: Any, latent_dim: int = 2048, kappa_map: str = "softplus", kappa_hidden: int | None = None
) -> nn.Module:
    """Give a timm model that you already have a fresh κ head, in place, and return it.

    The classifier stays and `model(x)` gives the same bits as before; `model.represent(x)` becomes available.
    The head is untrained: fit it before you read κ.

    Args:
        model: any timm classification model or backbone, but no `features_only` wrapper.
        latent_dim: ambient dimension of the sphere that κ will be fitted on.
        kappa_map: "softplus" or "exp", see `vissl_zoo.networks.kappa_head.KappaHead`.
        kappa_hidden: width of the head's hidden layer, by default that of the embedding.

    Raises:
        TypeError: `model` is no timm model with pooled features.
        ValueError: the model has a κ head, or its pooling is off.
    """
    if not (hasattr(model, "forward_head") and hasattr(model, "forward_features")):
        raise TypeError(f"add_kappa_head takes a timm model with pooled features, not {type(model).__name__}")
    if getattr(model, "kappa_head", None) is not None:
        raise ValueError("the model has a κ head already")
    build_args = {"latent_dim": latent_dim, "kappa_map": kappa_map, "kappa_hidden": kappa_hidden}
    head = build_kappa_head(model, build_args).train(model.training)
    with_heads(model, head, getattr(model, "prototype_head", None))
    model._model_args = {**getattr(model, "_model_args", {}), **build_args}
    return model


def build_kappa_head(model: nn.Module, args: Mapping[str, Any]) -> KappaHead:
    """Build a κ head of the model's width, device and dtype, by the arguments that config.json keeps."""
    return KappaHead(
        embedding_width(model),
        args["latent_dim"],
        args["kappa_map"],
        hidden=args["kappa_hidden"],
        **device_and_dtype(model),
    )


def embedding_width(model: Any) -> int:
    """Return F of the embedding (B, F), which some timm classes distinguish from `num_features`."""
    return getattr(model, "head_hidden_size", None) or model.num_features


def device_and_dtype(model: nn.Module) -> dict:
    """Return the factory keywords that place a new module beside the model's parameters."""
    parameter = next(model.parameters())
    return {"device": parameter.device, "dtype": parameter.dtype}
