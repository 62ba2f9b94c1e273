"""A training step by itself, on views that lie ready: what trials and profiles measure."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vissl_zoo.methods import Method
from vissl_zoo.recipes.base import Recipe

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def spare_copy(method: Method) -> Iterator[Method]:
    """A copy of the method to try things on: weights, running statistics and random state stay as they are."""
    device = next(method.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield copy.deepcopy(method)
    if device.type == "cuda":  # what the trial held may be in the way of the first step
        torch.cuda.empty_cache()


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Images (B, 3, H, W) on the device, without making the host wait: what CUDA copies must be pinned for that."""
    if device.type == "cuda" and images.device.type == "cpu":
        images = images.pin_memory()
    return images.to(device, non_blocking=True)


def noise_views(recipe: Recipe, batch: int, device: torch.device) -> list[Tensor]:
    """Views of normal noise in the recipe's shapes: V tensors (batch, 3, s, s), the standard ones first."""
    views = recipe.views
    sizes = [recipe.image_size] * views.standard + [views.low_size] * views.low
    dtype = getattr(torch, recipe.dtype)
    return [torch.randn(batch, 3, size, size, dtype=dtype).to(device) for size in sizes]


def forward_backward(method: Method, views: list[Tensor], precision: str) -> Callable[[], None]:
    """A call that runs one forward and one backward pass as the training does, and drops the gradients.

    Args:
        method: a copy that may be spoilt.
        views: V tensors (B, 3, s, s).
        precision: "no", "fp16" or "bf16", of the autocast.

    The call raises ArithmeticError when a precision makes the loss or a gradient infinite or not a number.
    """
    device = views[0].device.type

    def run() -> None:
        narrow = contextlib.nullcontext()
        if precision != "no":
            narrow = torch.autocast(device, AUTOCAST[precision])
        with narrow:
            loss = method(views).loss
        loss.backward()
        gradients = [p.grad for p in method.parameters() if p.grad is not None]
        # Also in float32, where nothing follows from it: each precision is timed with the same work.
        finite = torch.stack([loss.isfinite(), torch.nn.utils.get_total_norm(gradients).isfinite()]).tolist()
        method.zero_grad()
        if precision != "no" and not all(finite):
            what = "a gradient" if finite[0] else "the loss"
            raise ArithmeticError(f"{what} is not finite in {precision}")

    return run
