"""Which dtype a quantity is computed in, and which it is returned in.

Parameters, arguments and results are float32 or float64: half precision is widened on the way in. What lies between
them is float64, which autocast leaves alone. Naive float32 would be off by 0.31 nats at d = 2048 and κ = 1e6.
"""

import torch
from torch import Tensor

# Device types without float64. A name added here (an Intel GPU without fp64, say) is served as MPS is.
WITHOUT_FLOAT64 = {"mps"}


def wide(x: Tensor) -> Tensor:
    """`x` in float64, or in float32 where its device has no float64."""
    return x.to(torch.float32 if x.device.type in WITHOUT_FLOAT64 else torch.float64)


def scalars(x: Tensor) -> Tensor:
    """`x`, a few numbers an image, in float64; on the CPU where its device has no float64."""
    return (x.cpu() if x.device.type in WITHOUT_FLOAT64 else x).to(torch.float64)


def result_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype to return: float64 if any of `dtypes` is, otherwise float32.

    Raises TypeError for a dtype that is not a real floating-point one.
    """
    for dtype in dtypes:
        if not dtype.is_floating_point:
            raise TypeError(f"expected floating-point tensors, got {dtype}")
    return torch.float64 if torch.float64 in dtypes else torch.float32
