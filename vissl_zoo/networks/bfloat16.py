"""Whether a device computes in bfloat16 or only emulates it: asked, never measured."""

from __future__ import annotations

import torch


def bfloat16_is_native(device: torch.device | str) -> bool:
    """Whether the hardware multiplies in bfloat16: CUDA's own answer; on a CPU AVX512-BF16 or AMX.

    False means float32: emulated, bfloat16 is slower, and nothing is lost where torch cannot tell.
    """
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in queries if hasattr(torch.cpu, name))
