"""Where a command computes."""

from __future__ import annotations

import torch

from vissl_zoo.cpu.allocator import keep_freed_memory


def take_device() -> torch.device:
    """The GPU if there is one, else the CPU, which is then made ready: see `keep_freed_memory`."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")
