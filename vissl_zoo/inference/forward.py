"""How a model is run over images: exactly, or the fast way that its device is made for.

The fast way on a CPU is OpenVINO, where it is installed and the images are many. Else it is a copy in channels-last
with batch normalisation folded into the convolutions. Both compute in bfloat16 where the device does. κ and
uncertainty are computed in float32 from the embedding in any case.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vissl_zoo.errors import first_line
from vissl_zoo.inference.hashing import model_hash
from vissl_zoo.inference.runtime import is_installed, openvino_trunk
from vissl_zoo.models import Representation
from vissl_zoo.models.representation import HEAD_NAMES, RepresentationMixin, certainty, with_heads
from vissl_zoo.networks.bfloat16 import bfloat16_is_native

Forward = Callable[[Tensor], Representation]
"""Normalised images (B, 3, s, s) float32 -> what the model says of them, in float32; κ and uncertainty are None for a
model without a κ head. The weights are those that the model had when the way was made."""

_UNKNOWN: Any = None  # κ and uncertainty of a model without a κ head
_logger = logging.getLogger(__name__)


def exact_forward(model: nn.Module) -> Forward:
    """The model as it is, by deterministic kernels and without TF32."""

    def call(x: Tensor) -> Representation:
        precise = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with precise if x.is_cuda else contextlib.nullcontext():
            return _represent(model, x.contiguous())

    return call


def fast_forward(model: nn.Module, image_size: int, count: int = 0) -> Forward:
    """A copy of the model that is made to be fast; the model itself where it is not float32 or no copy runs.

    Args:
        model: in evaluation mode.
        image_size: side of the images in pixels, at which the copy is tried.
        count: how many images are to come; 200 of 224 pixels are worth a conversion, and fewer take what is kept.
    """
    parameter = next(model.parameters())
    if parameter.dtype != torch.float32:
        return exact_forward(model)
    bfloat16 = bfloat16_is_native(parameter.device)
    ways: list[partial[Any]] = [partial(folded, model, bfloat16=bfloat16)]
    if parameter.device.type == "cpu":
        ways.insert(0, partial(converted, model, image_size, count * image_size**2, bfloat16=bfloat16))
    for way in ways:
        try:
            if call := way():
                call(torch.zeros(1, 3, image_size, image_size, device=parameter.device))
                return call
        except Exception as error:  # a model may refuse to be copied, an operation of it to run in bfloat16
            _logger.info("the model cannot be %s: %s", way.func.__name__, first_line(error))
    return exact_forward(model)


def converted(model: Any, image_size: int, pixels: int, *, bfloat16: bool) -> Forward | None:
    """The trunk by OpenVINO and the heads by torch; None where images of so many pixels do not pay for a conversion."""
    has_kappa = getattr(model, "kappa_head", None) is not None
    if not is_installed() or (has_kappa and not isinstance(model, RepresentationMixin)):
        return None  # one that has κ and is none of ours has a `represent` of its own
    trunk, heads = _Trunk(copy.deepcopy(model).eval()), None
    if has_kappa:
        heads = trunk.body.kappa_head, trunk.body.prototype_head
        with_heads(trunk.body, None)  # another κ for the same trunk needs no other conversion
    call = openvino_trunk(trunk, model_hash(trunk.body), image_size, pixels, bfloat16)
    if call is None:
        return None

    @torch.inference_mode()
    def forward(x: Tensor) -> Representation:
        embedding = call(x)
        if heads is None:
            return Representation(embedding, _UNKNOWN, _UNKNOWN)
        return certainty(embedding, *heads)

    return forward


class _Trunk(nn.Module):
    """Images -> embeddings, without the classifier."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return _embedding(self.body, x)


def folded(model: nn.Module, *, bfloat16: bool) -> Forward:
    """A channels-last copy with batch normalisation folded into convolutions, under bfloat16 autocast if asked."""
    copied = copy.deepcopy(model).eval()
    fold_batch_norm(copied)
    copied = copied.to(memory_format=torch.channels_last)
    if bfloat16:  # cast once: autocast would cast the weights again for every batch
        for name, module in copied.named_modules():
            if type(module) in (nn.Conv2d, nn.Linear) and name.split(".")[0] not in HEAD_NAMES:
                module.to(torch.bfloat16)

    def call(x: Tensor) -> Representation:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            return _represent(copied, x)

    return call


def fold_batch_norm(model: nn.Module) -> int:
    """Fold every BatchNorm2d that alone follows a Conv2d into it, in place; return how many there were.

    Which follow which is read off the traced graph; a model that cannot be traced is left as it is.
    """
    modules: dict[str, Any] = dict(model.named_modules())
    if not any(type(module) is nn.BatchNorm2d for module in modules.values()):
        return 0
    try:
        nodes = [n for n in torch.fx.symbolic_trace(model).graph.nodes if n.op == "call_module"]
    except Exception:  # control flow that depends on the input raises anything
        return 0
    calls = [n.target for n in nodes]
    pairs = [
        (before.target, n.target)
        for n in nodes
        if type(modules[n.target]) is nn.BatchNorm2d
        and (before := n.args[0]).op == "call_module"
        and type(modules[before.target]) is nn.Conv2d
        and len(before.users) == calls.count(before.target) == calls.count(n.target) == 1
    ]
    for convolution, norm in pairs:
        model.set_submodule(convolution, fuse_conv_bn_eval(modules[convolution], modules[norm]))
        model.set_submodule(norm, nn.Identity())
    return len(pairs)


@torch.inference_mode()
def _represent(model: Any, x: Tensor) -> Representation:
    if not torch.is_autocast_enabled(x.device.type):
        x = x.to(next(model.parameters()).dtype)
    if getattr(model, "kappa_head", None) is not None:
        return Representation(*(part.float() for part in model.represent(x)))
    return Representation(_embedding(model, x).float(), _UNKNOWN, _UNKNOWN)


def _embedding(model: Any, x: Tensor) -> Tensor:
    if getattr(model, "num_classes", 0) and hasattr(model, "forward_head"):  # what the classifier is given
        return model.forward_head(model.forward_features(x), pre_logits=True)
    return model(x)
