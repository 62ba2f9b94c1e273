"""The fastest forward pass whose results are as good: float32, or a folded copy in channels-last or bfloat16.

Measured with ResNet-18 at 224 px, batches of 32, one core with AVX512-BF16: float32 47 ms an image, channels-last with
batch normalisation folded into the convolutions 28, the same under bfloat16 autocast 16. The copy differs from float32
by 1e-6 (folded) of the embedding's length. In bfloat16 the worst of 2,048 embeddings of the demo's trained network was
off by 2.5 % and the worst κ by 1.6 %, the rank correlation of κ with float32's was .9999, kNN .661 and not .658;
κ and uncertainty are computed in float32 from the embedding throughout.
`torch.compile` was left out: it compiles for tens of seconds, and most scoring is done by then.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vissl_zoo.models._representation import HEAD_NAMES
from vissl_zoo.speed import run_trial

PLAIN, FOLDED, BFLOAT16 = "float32", "float32 channels-last", "bfloat16 channels-last"
EMBEDDING_TOLERANCE = 0.05  # of its length, by which an embedding may differ from that of plain float32
UNCERTAINTY_TOLERANCE = 0.02  # of [0, 1]
TRIAL_IMAGES = 4  # on a CPU: the ratios are those at 32 images, and the trial costs what 60 fast images do
WORTH_A_TRIAL = 128  # images to come; below that the trial costs more than it saves

_choices: dict[tuple, str] = {}

Said = tuple[Tensor, Tensor | None, Tensor | None]
"""(embedding (B, F), κ (B,), uncertainty (B,)), all float32; the last two are None without a κ head."""


class Forward(NamedTuple):
    """A way to run a model: its `name` (`PLAIN`, `FOLDED` or `BFLOAT16`), and the call, (B, 3, s, s) -> `Said`.

    The weights are those the model had when the way was chosen.
    """

    name: str
    call: Callable[[Tensor], Said]


def choose_forward(model: nn.Module, images: Tensor, to_come: int, *, exact: bool = False) -> Forward:
    """Choose by a short trial how to run `model`, once for each model and image size in a process.

    A way is out when the first images come out further from plain float32 than `EMBEDDING_TOLERANCE` and
    `UNCERTAINTY_TOLERANCE` allow. Without a trial plain float32 is taken: where `exact` asks for it, when fewer than
    `WORTH_A_TRIAL` images are to come, and for weights that are not float32.

    Args:
        model: in evaluation mode.
        images: a batch (B, 3, s, s) float32 of the images to come, on the model's device. On a CPU the first few are
            tried; of few images an accelerator's time goes into starting its kernels, whatever the way.
        to_come: how many images will be run.
        exact: plain float32 with deterministic kernels.
    """
    plain = Forward(PLAIN, lambda x: _represent(model, x.contiguous()))
    if exact:
        return Forward(PLAIN, _deterministic(plain.call))
    if to_come < WORTH_A_TRIAL or next(model.parameters()).dtype != torch.float32:
        return plain
    on_cpu = images.device.type == "cpu"
    x = images[:TRIAL_IMAGES] if on_cpu else images
    key = (repr(model), tuple(x.shape[1:]), str(x.device), torch.get_num_threads())
    ways = {FOLDED: lambda: folded(model), BFLOAT16: lambda: folded(model, bfloat16=True)}
    expected = plain.call(x)
    if key not in _choices:
        built: dict[str, Forward] = {}
        tried = list(ways) if not on_cpu or _bfloat16_pays() else [FOLDED]

        def attempt(name: str) -> None:
            if (
                name not in built
            ):  # in the warm-up: a model that cannot be copied or cast is out, not an error
                built[name] = ways[name]()
                _check_agreement(built[name].call(x), expected)
            built[name].call(x)

        candidates = {PLAIN: lambda: plain.call(x)} | {n: (lambda n=n: attempt(n)) for n in tried}
        _choices[key] = run_trial(candidates, repeats=2, device=x.device).choice
        if _choices[key] in built:
            return built[_choices[key]]
    if _choices[key] == PLAIN:
        return plain
    chosen = ways[_choices[key]]()
    try:  # the trial may have been of other weights, and what is as good for those need not be for these
        _check_agreement(chosen.call(x), expected)
    except ArithmeticError:
        return plain
    return chosen


def folded(model: nn.Module, *, bfloat16: bool = False) -> Forward:
    """A channels-last copy with batch normalisation folded into convolutions, under bfloat16 autocast if asked."""
    copied = copy.deepcopy(model).eval()
    fold_batch_norm(copied)
    copied = copied.to(memory_format=torch.channels_last)
    if bfloat16:  # cast once: autocast would cast the weights again for every batch
        for name, module in copied.named_modules():
            if type(module) in (nn.Conv2d, nn.Linear) and name.split(".")[0] not in HEAD_NAMES:
                module.to(torch.bfloat16)

    def call(x: Tensor) -> Said:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            return _represent(copied, x)

    return Forward(BFLOAT16 if bfloat16 else FOLDED, call)


def fold_batch_norm(model: nn.Module) -> int:
    """Fold every BatchNorm2d that alone follows a Conv2d into it, in place; return how many there were.

    Which follow which is read off the traced graph; a model that cannot be traced is left as it is.
    """
    modules = dict(model.named_modules())
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
def _represent(model: nn.Module, x: Tensor) -> Said:
    x = x.to(next(model.parameters()).dtype) if not torch.is_autocast_enabled(x.device.type) else x
    said = model.represent(x) if getattr(model, "kappa_head", None) is not None else (model(x), None, None)
    return tuple(None if part is None else part.float() for part in said)


def _deterministic(call: Callable[[Tensor], Said]) -> Callable[[Tensor], Said]:
    """The call with cuDNN's deterministic kernels and no TF32; nothing to change on a CPU."""

    def exactly(x: Tensor) -> Said:
        precise = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with precise if x.is_cuda else contextlib.nullcontext():
            return call(x)

    return exactly


def _check_agreement(found: Said, expected: Said) -> None:
    """Raise ArithmeticError unless the results lie within the tolerances."""
    embedding, _, uncertainty = expected
    off = (found[0] - embedding).norm(dim=1) / embedding.norm(dim=1)
    if not (off <= EMBEDDING_TOLERANCE).all():
        raise ArithmeticError(f"embeddings differ by {off.max():.2g} of their length")
    if uncertainty is not None and not ((found[2] - uncertainty).abs() <= UNCERTAINTY_TOLERANCE).all():
        raise ArithmeticError("uncertainty differs")


def _bfloat16_pays() -> bool:
    """Whether the CPU multiplies matrices faster in bfloat16; where it is emulated, a trial is too long."""
    wide = torch.ones(256, 256)
    narrow = wide.to(torch.bfloat16)
    trial = run_trial({"float32": lambda: wide @ wide, "bfloat16": lambda: narrow @ narrow})
    return trial.choice == "bfloat16"
