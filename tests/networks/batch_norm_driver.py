"""Batch norms on two halves of a batch, in the two processes that torchrun starts.

    torchrun --nproc_per_node 2 tests/networks/batch_norm_driver.py RESULT.safetensors

`layers`, `inputs` and `measure` are also what the test calls in its own process on the whole batch.
"""

import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from vissl_zoo.networks.batch_norm import synchronize_batch_norm

CHANNELS, BATCH, ROUNDS = 5, 8, 2


def layers() -> dict[str, nn.Module]:
    """One of each kind, in float64, with weights that are not trivial."""
    torch.manual_seed(0)
    every = {
        "1d": nn.BatchNorm1d(CHANNELS),
        "1d without scale and shift": nn.BatchNorm1d(CHANNELS, affine=False),
        "2d": nn.BatchNorm2d(CHANNELS, eps=1e-3, momentum=0.3),
        "2d with cumulative statistics": nn.BatchNorm2d(CHANNELS, momentum=None),
        "2d without statistics": nn.BatchNorm2d(CHANNELS, track_running_stats=False),
        "timm's, with activation": BatchNormAct2d(CHANNELS),
    }
    for layer in every.values():
        for parameter in layer.double().parameters():
            nn.init.normal_(parameter)
    return every


def inputs(name: str, number: int) -> tuple[Tensor, Tensor]:
    """A whole batch of float64 far from zero mean, and weights that make a loss of the outputs."""
    generator = torch.Generator().manual_seed(number)
    shape = (BATCH, CHANNELS) if name.startswith("1d") else (BATCH, CHANNELS, 3, 2)
    x = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    return 7 + 3 * x[0], x[1]


def measure(name: str, layer: nn.Module, rank: int = 0, processes: int = 1) -> dict[str, Tensor]:
    """Outputs, gradients and statistics after two rounds with this process's share of each batch."""
    found = {}
    for number in range(ROUNDS):
        x, weight = (part.chunk(processes)[rank].clone() for part in inputs(name, number))
        out = layer(x.requires_grad_())
        (out * weight).sum().backward()
        found |= {f"{name}/out {number}": out.detach(), f"{name}/gradient of x {number}": x.grad}
    found |= {f"{name}/gradient of {k}": p.grad for k, p in layer.named_parameters()}
    return found | {f"{name}/{k}": v for k, v in layer.named_buffers()}


def main() -> None:
    """Measure in every process, put the shares together, and write them to a file."""
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    whole = {"processes": torch.tensor(processes)}
    for name, layer in layers().items():
        layer = synchronize_batch_norm(layer, torch.device("cpu"))
        for key, value in measure(name, layer, rank, processes).items():
            parts = [torch.empty_like(value) for _ in range(processes)]
            dist.all_gather(parts, value.contiguous())
            if "/out" in key or "/gradient of x" in key:
                whole[key] = torch.cat(parts)
            elif "/gradient" in key:  # each process has the part of its own images; DDP adds them up
                whole[key] = sum(parts)
            else:
                whole[key] = torch.stack(parts)
    if rank == 0:
        save_file(whole, sys.argv[1])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
