"""Batch norm over the global batch, so that two processes of 32 images train as one of 64 does.

On accelerators that is `nn.SyncBatchNorm`, which has no CPU kernel; there a small all-reduce batch norm stands in.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this process is."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    """A sum over processes hands every process the sum of their gradients.

    Ours because torch deprecated its own differentiable all-reduce for an interface that is still private.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _AllGather(torch.autograd.Function):
    """Concatenation over processes; each process gets back the sum of all gradients of its own part."""

    @staticmethod
    def forward(ctx, x: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.length = dim, x.shape[dim]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.narrow(ctx.dim, rank() * ctx.length, ctx.length), None


def all_gather(x: Tensor, dim: int = 0) -> Tensor:
    """`x` of all processes, joined along `dim` in the order of their ranks, with the gradient carried."""
    return _AllGather.apply(x, dim) if world_size() > 1 else x


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of `x` over all processes, with the gradient carried across them."""
    return _AllReduceSum.apply(x) if world_size() > 1 else x


class _GlobalBatchNorm(torch.autograd.Function):
    """Batch norm by the statistics of all processes, from what torch's kernels for one process are made of.

    (Tried: the textbook's formulas in torch's operations, differentiated by torch. Six times as slow, ten times and
    more in bfloat16: two processes trained at .4 of the speed of one.)
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, C, ...), weight and bias (C,) -> like x, and mean and biased variance (C,) over all processes.

        Each has as many values a channel: the variance is the mean of theirs and that of their means, which cancels
        nothing as E[x²] - E[x]² does.
        """
        none = x.new_zeros(x.shape[1], dtype=weight.dtype)  # where the kernel would keep running statistics
        own = torch.stack(torch.batch_norm_update_stats(x, none, none.clone(), 0.0))
        parts = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(parts, own)
        means, variances = torch.stack(parts).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """dx = a (g - E[g] - x̂ E[g x̂]), a the weight over the deviation and the means over all processes."""
        x, weight, mean, variance = ctx.saved_tensors
        # Of one memory format: for two, bfloat16's sums are kept in bfloat16.
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        x, gradient = (t.contiguous(memory_format=order) for t in (x, gradient))
        inverse = torch.rsqrt(variance + ctx.eps)
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse, True, ctx.eps, [False, True, True]
        )  # Σ g x̂ and Σ g of this process
        sums = torch.stack([by_weight, by_bias])
        dist.all_reduce(sums)
        share = -weight * inverse / (x.numel() // x.shape[1] * world_size())
        weight_share, bias_share = share * sums
        rest = F.batch_norm(x, mean, variance, weight_share, bias_share, False, 0.0, ctx.eps)
        scale = (weight * inverse).view([1, -1] + [1] * (x.dim() - 2))
        return torch.addcmul(rest, gradient, scale).to(x.dtype), by_weight, by_bias, None


class _GlobalStatistics(_BatchNorm if TYPE_CHECKING else object):
    """Mixin before a batch norm class: training statistics come from all processes.

    Every process must hold the same number of values per channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        wide = x.float() if x.dtype == torch.float16 else x  # for which a CPU has not all of the kernels
        dtype = torch.float32 if x.dtype == torch.bfloat16 else wide.dtype
        if self.affine:
            weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        else:
            weight, bias = (wide.new_full((x.shape[1],), value, dtype=dtype) for value in (1.0, 0.0))
        out, mean, variance = _GlobalBatchNorm.apply(wide, weight, bias, self.eps)
        if self.track_running_stats:
            count = x.numel() // x.shape[1] * world_size()
            self._move_running_statistics(mean, variance * count / max(count - 1, 1))
        out = out.to(x.dtype)
        for name in ("drop", "act"):  # timm's BatchNormAct2d is a batch norm with these two behind it
            if hasattr(self, name):
                out = getattr(self, name)(out)
        return out

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None  # these three for the type checker
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


@lru_cache
def _global_class(cls: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"Global{cls.__name__}", (_GlobalStatistics, cls), {})


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Make every batch norm in `module` use the global batch; parameters and state-dict keys stay.

    Args:
        module: changed in place where possible; use the return value.
        device: where it will train. CUDA takes `nn.SyncBatchNorm`, a CPU the stand-in above.
    """
    if world_size() == 1:
        return module
    if device.type == "cuda":
        # Here, since timm's import registers the methods, which need this file.
        from timm.layers.norm_act import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for child in module.modules():
        if isinstance(child, _BatchNorm) and not isinstance(child, _GlobalStatistics):
            child.__class__ = _global_class(type(child))
    return module
