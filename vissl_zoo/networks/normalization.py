"""Batch norm over the global batch, so that two processes of 32 images train as one of 64 does.

On accelerators that is `nn.SyncBatchNorm`, which has no CPU kernel; there a small all-reduce batch norm stands in.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
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


class _GlobalStatistics:
    """Mixin before a batch norm class: training statistics come from all processes.

    Every process must hold the same number of values per channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        others = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * world_size()
        mean = all_reduce_sum(wide.sum(others)) / count
        # Two passes, not E[x²] - E[x]²: the equality of one and two processes is tested to 1e-10.
        centred = wide - mean.view(shape)
        variance = all_reduce_sum(centred.square().sum(others)) / count
        if self.track_running_stats:
            self._move_running_statistics(mean.detach(), variance.detach() * count / max(count - 1, 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        out = out.to(x.dtype)
        for name in ("drop", "act"):  # timm's BatchNormAct2d is a batch norm with these two behind it
            if hasattr(self, name):
                out = getattr(self, name)(out)
        return out

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
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
        return convert_sync_batchnorm(module)
    for child in module.modules():
        if isinstance(child, _BatchNorm) and not isinstance(child, _GlobalStatistics):
            child.__class__ = _global_class(type(child))
    return module
