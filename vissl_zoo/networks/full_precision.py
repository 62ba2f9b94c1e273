"""Small networks whose arithmetic stays in float32 or better, whatever precision surrounds them.

A bfloat16 κ near the paper's 850 moves in steps of 4. Ranked by such a κ, thousands of images tie, and
the area under a ROC curve counts every tie as a coin toss. The heads are a thousandth of the network's
work, so full precision costs nothing.
"""

# pyright: reportOptionalMemberAccess=false

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def autocast_disabled(device_type: str) -> contextlib.AbstractContextManager:
    """Return a context in which autocast is off on `device_type` ("cpu", "cuda", "meta", …).

    A device that has no autocast at all (meta) gets a context that does nothing.
    """
    if _has_autocast(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()


@torch.compiler.assume_constant_result
def _has_autocast(device_type: str) -> bool:
    """Into what this asks torch.compile of torch 2.6 to 2.8 cannot look, and need not."""
    return torch.amp.is_autocast_available(device_type)


class FullPrecisionMLP(nn.Module):
    """Linear → BatchNorm → ReLU → Linear, computed in float32 (in float64 when its parameters are).

    The first linear layer has no bias, since batch normalisation would subtract it again. Weights kept in
    bfloat16 or float16 (`model.to(torch.bfloat16)`) are widened on the fly. It can be scripted, compiled
    and exported; TorchScript leaves autocast alone, because it accepts no context chosen at run time.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, device=None, dtype=None):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.fc1 = nn.Linear(in_features, hidden, bias=False, **dd)
        self.norm = nn.BatchNorm1d(hidden, **dd)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, out_features, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, in_features) of any float dtype to (B, out_features) in float32 or float64."""
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            return self._compute(x)
        with autocast_disabled(x.device.type):
            return self._compute(x)

    def _compute(self, x: Tensor) -> Tensor:
        dtype = torch.float64 if self.fc1.weight.dtype == torch.float64 else torch.float32
        x = x.to(dtype)
        if self.fc1.weight.dtype == dtype:  # the usual case, and the only one that SyncBatchNorm can serve
            return self.fc2(self.act(self.norm(self.fc1(x))))
        x = F.linear(x, self.fc1.weight.to(dtype))
        x = self.act(self._normalize(x))
        return F.linear(x, self.fc2.weight.to(dtype), self.fc2.bias.to(dtype))

    def _normalize(self, x: Tensor) -> Tensor:
        """Apply `self.norm`, whose parameters and buffers are narrower than x (B, hidden)."""
        mean, var = self.norm.running_mean.to(x.dtype), self.norm.running_var.to(x.dtype)
        weight, bias = self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype)
        x = F.batch_norm(x, mean, var, weight, bias, self.training, 0.1, self.norm.eps)
        if self.training:  # the running statistics were updated in the widened copies
            self.norm.running_mean.copy_(mean)
            self.norm.running_var.copy_(var)
            self.norm.num_batches_tracked.add_(1)
        return x
