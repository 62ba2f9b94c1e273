"""Which dtype a quantity is computed in and which it is returned in, whatever autocast says.

Three rules hold in this room. Parameters, arguments and results are float32 or float64; half precision
is widened on the way in. The arithmetic between them is float64 wherever the device has it. And autocast
never reaches that arithmetic.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Device types without float64. A name added here (an Intel GPU without fp64, say) gets the float32 form.
WITHOUT_FLOAT64 = {"mps"}


def working_dtype(device: torch.device) -> torch.dtype:
    """The dtype to compute in on `device`: float64, or float32 where float64 is missing."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def result_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype to return: float64 if any of `dtypes` is, otherwise float32.

    Raises TypeError for a dtype that is not a real floating-point one.
    """
    for dtype in dtypes:
        if not dtype.is_floating_point:
            raise TypeError(f"expected floating-point tensors, got {dtype}")
    return torch.float64 if torch.float64 in dtypes else torch.float32


def widen(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in the wider `dtype`, same shape; a float16 `x` receives a gradient that saturates.

    Near the antipode d log p / dμ reaches κ·10¹², which every other dtype can hold. In float16 it would
    become inf, and inf · 0 = NaN one layer further down.
    """
    if x.dtype == torch.float16 and x.requires_grad:
        return _WidenHalf.apply(x, dtype)
    return x.to(dtype)


class _WidenHalf(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, dtype):
        return x.to(dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        limit = torch.finfo(torch.float16).max
        return grad.clamp(-limit, limit).to(torch.float16), None


def with_value(value: Tensor, graph: Tensor) -> Tensor:
    """A tensor with the value of `value` and the gradient of `graph`; equal shapes, both finite."""
    # graph - graph is an exact zero, so the value survives bit for bit.
    return value.detach() + (graph - graph.detach())


def outside_autocast(device: torch.device) -> AbstractContextManager:
    """A context in which autocast is off for `device`."""
    # The meta device has no autocast and refuses to be asked for one.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
