"""Steps whose gradient is not finite are left out, where bfloat16 on a CPU may produce one out of nothing."""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from tqdm.auto import tqdm

from vissl_zoo.errors import UserError

PATIENCE = 20  # steps left out before their share is judged
MOST = 0.05  # of the steps


class GradientGuard:
    """Takes the optimizer's steps; in bfloat16 on a CPU not those whose gradient is not finite.

    At maps of one pixel oneDNN's kernel for the weights' gradient multiplies memory that nobody wrote by zero, which
    gives NaN where that reads as infinity. `use_small_maps` keeps from that kernel all but convolutions with groups or
    a bias. (For float16 there is loss scaling; on an accelerator looking at the gradient would make the host wait.)
    """

    def __init__(self, method: nn.Module, accelerator: Accelerator):
        self._parameters = [p for p in method.parameters() if p.requires_grad]
        self._accelerator = accelerator
        self._on = accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu"
        self._steps = self._left_out = 0

    def step(self, optimizer: AcceleratedOptimizer) -> bool:
        """Take the step that is due after this batch, if any; returns whether the weights moved.

        Raises:
            UserError: more than a twentieth of the steps had to be left out.
        """
        if not self._accelerator.sync_gradients or not self.allows():
            return False
        optimizer.step()
        return not optimizer.step_was_skipped  # as float16's loss scaling does on overflow

    def allows(self) -> bool:
        """Whether all gradients, of all processes together, are finite; costs less than a hundredth of a step."""
        if not self._on:
            return True
        self._steps += 1
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if torch.nn.utils.get_total_norm(gradients).isfinite():
            return True
        self._left_out += 1
        if self._left_out == 1:
            said = "a gradient is not finite in bfloat16: the step is left out (--mixed-precision no has none such)"
            tqdm.write(said, file=sys.stderr)
        if self._left_out > max(PATIENCE, MOST * self._steps):
            raise UserError(
                f"{self._left_out} of {self._steps} gradients are not finite in bfloat16: try --mixed-precision no, "
                "or a smaller --lr"
            )
        return False
