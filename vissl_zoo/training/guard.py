"""Steps whose gradient is not finite are left out, where bfloat16 on a CPU may produce one out of nothing."""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm

from vissl_zoo.errors import UserError

PATIENCE = 20  # steps left out before their share is judged
MOST = 0.05  # of the steps


class GradientGuard:
    """Says whether a step may be taken; only in bfloat16 on a CPU, elsewhere it always may.

    At feature maps of one pixel, as in the last stage of a network for images of 16, oneDNN's bfloat16 kernel for the
    weights' gradient multiplies memory that nobody wrote by zero (torch 2.15, AVX512-BF16). That is nothing, unless
    what lies there reads as NaN or infinity: then the loss is well and a few hundred weights are lost for good.
    `cpu.small_maps` keeps most convolutions from that kernel; those with groups or a bias still run it. (For
    float16 there is loss scaling; on an accelerator looking at the gradient would make the host wait.)

    Attributes:
        left_out: steps left out so far.
    """

    def __init__(self, method: nn.Module, accelerator: Accelerator):
        self._parameters = [p for p in method.parameters() if p.requires_grad]
        self._on = accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu"
        self.steps = self.left_out = 0

    def allows(self) -> bool:
        """Whether all gradients, of all processes together, are finite; costs less than a hundredth of a step.

        Raises:
            UserError: more than a twentieth of the steps had to be left out.
        """
        if not self._on:
            return True
        self.steps += 1
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if torch.nn.utils.get_total_norm(gradients).isfinite():
            return True
        self.left_out += 1
        if self.left_out == 1:
            said = "a gradient is not finite in bfloat16: the step is left out (--mixed-precision no has none such)"
            tqdm.write(said, file=sys.stderr)
        if self.left_out > max(PATIENCE, MOST * self.steps):
            raise UserError(
                f"{self.left_out} of {self.steps} gradients are not finite in bfloat16: try --mixed-precision no, or a "
                "smaller --lr"
            )
        return False
