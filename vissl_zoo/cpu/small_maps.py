"""Training convolutions over maps of a few pixels as matrix products, on a CPU several times as fast.

The last stages of a network for images of 32 or 64 have maps of 1 to 4 pixels. There a 3 × 3 kernel lies mostly on the
padding. oneDNN's direct kernels are made for rows of many pixels: they run at a fifth to a half of a matrix product's
speed. Which way is taken follows from shapes and dtype alone: a run that is resumed must round as it did.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

# Pixels of the output up to which patches are faster: for all three products, and for the weights' gradient alone (for
# all three, too, where the kernel is a single pixel and the patches are the input).
PATCHED, PATCHED_GRADIENT = 9, 16
# Images from which one matrix pays that is larger than the kernel, up to twice: it takes long to build.
MATRIX_BATCH = 32


class Shape(NamedTuple):
    """Of a convolution, (height, width) each: of its input's map, its kernel, its stride and its padding."""

    map: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the output's map."""
        sides = zip(*self, strict=True)
        height, width = ((n + 2 * padding - k) // stride + 1 for n, k, stride, padding in sides)
        return height, width

    def pairs(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Row and column of a pixel of the output, of a tap of the kernel, and of the input's pixel below it."""
        height, width = self.output
        for row, column, i, j in itertools.product(*map(range, (height, width, *self.kernel))):
            y = row * self.stride[0] + i - self.padding[0]
            x = column * self.stride[1] + j - self.padding[1]
            if 0 <= y < self.map[0] and 0 <= x < self.map[1]:
                yield row, column, i, j, y, x


class SmallMapConv2d(nn.Conv2d):
    """A convolution that in training on a CPU takes the fastest of its ways for maps of so few pixels.

    Parameters, names and, up to rounding, results are those of `nn.Conv2d`; outside training it is one to the bit.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) to (B, C', H', W')."""
        small = self.training and x.device.type == "cpu" and x.dim() == 4 and len(x)
        if not small or isinstance(self.padding, str):
            return super().forward(x)
        dtype = x.dtype
        if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
            dtype = torch.get_autocast_dtype("cpu")
        shape = Shape(x.shape[2:], self.kernel_size, self.stride, self.padding)
        if min(shape.output) < 1 or x.shape[1] != self.in_channels:
            return super().forward(x)  # which says what is wrong
        taps, below, pixels = (math.prod(size) for size in (shape.kernel, shape.map, shape.output))
        most = taps * (2 if len(x) >= MATRIX_BATCH else 1)
        # At least half of the kernel is on the padding, and the matrix is not much larger than the kernel.
        if 2 * below <= taps and pixels * below <= most:
            return _OneMatrix.apply(x.to(dtype), self.weight, shape)
        if dtype == torch.bfloat16 and pixels <= PATCHED_GRADIENT:
            all_three = pixels <= PATCHED or shape.kernel == (1, 1)
            return _Patches.apply(x.to(dtype), self.weight.to(dtype), shape, all_three)
        return super().forward(x)


def use_small_maps(module: nn.Module) -> nn.Module:
    """Make the convolutions in `module` that could gain `SmallMapConv2d`, in place; state-dict keys stay.

    Those with groups, dilation, a bias or a class of their own are left as they are.
    """
    for child in module.modules():
        if type(child) is nn.Conv2d and _could_gain(child):
            child.__class__ = SmallMapConv2d
    return module


def _could_gain(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.bias is None
    return plain and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


class _OneMatrix(Function):
    """Every pixel of the output is a linear function of every pixel of the input: one matrix (H'·W'·C', H·W·C).

    It is built anew for the backward pass: half a millisecond, where kept it would hold 8 MiB for 512 channels.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        out = _rows(x).flatten(1) @ _matrix(weight, shape, x.dtype).T
        return _map(out, shape.output)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        gradient = _rows(gradient).flatten(1)
        if ctx.needs_input_grad[0]:
            of_x = _map(gradient @ _matrix(weight, ctx.shape, x.dtype), ctx.shape.map)
        if ctx.needs_input_grad[1]:
            of_matrix = gradient.T @ _rows(x).flatten(1)
            of_weight = _sum_over_pixels(of_matrix, weight, ctx.shape)
        return of_x, of_weight, None


class _Patches(Function):
    """The patch of the input below each pixel of the output is a row (k·k·C) of a matrix; the kernel multiplies it.

    With `all_three` False only the weights' gradient is computed so. The patches are cut anew for the backward pass:
    they are nine times the input.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, shape: Shape, all_three: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape, ctx.all_three = shape, all_three
        if not all_three:
            return F.conv2d(x, weight, None, shape.stride, shape.padding)
        out = _patches(x, shape) @ _rows(weight).flatten(1).T
        return _map(out.view(len(x), -1), shape.output)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        pixels = _rows(gradient).flatten(0, 2)
        if ctx.needs_input_grad[0] and ctx.all_three:
            of_x = _sum_of_patches(pixels @ _rows(weight).flatten(1), x, ctx.shape)
        elif ctx.needs_input_grad[0]:
            # No bias, dilation or groups; of the three gradients that of x alone.
            plain = (
                None,
                ctx.shape.stride,
                ctx.shape.padding,
                (1, 1),
                False,
                (0, 0),
                1,
                [True, False, False],
            )
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, *plain)[0]
        if ctx.needs_input_grad[1]:
            of_weight = pixels.T @ _patches(x, ctx.shape)
            of_weight = _map(of_weight, ctx.shape.kernel)
        return of_x, of_weight, None, None


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C) that lies so in memory; in channels_last nothing is copied."""
    return x.permute(0, 2, 3, 1).contiguous()


def _map(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H·W·C) as (B, C, H, W), in channels_last."""
    return rows.view(len(rows), *size, -1).permute(0, 3, 1, 2)


def _matrix(weight: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """The kernel (C', C, k, k) as what takes all pixels of a map to all pixels of the next, (H'·W'·C', H·W·C)."""
    weight = weight.to(dtype)
    matrix = weight.new_zeros(*shape.output, len(weight), *shape.map, weight.shape[1])
    for row, column, i, j, y, x in shape.pairs():
        matrix[row, column, :, y, x] = weight[:, :, i, j]
    return matrix.view(-1, math.prod(shape.map) * weight.shape[1])


def _sum_over_pixels(of_matrix: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """The gradient of `_matrix`'s result as that of the kernel: a tap stands wherever the same shift does."""
    of_matrix = of_matrix.view(*shape.output, len(weight), *shape.map, weight.shape[1])
    of_weight = weight.new_zeros(len(weight), *shape.kernel, weight.shape[1])
    for row, column, i, j, y, x in shape.pairs():
        of_weight[:, i, j] += of_matrix[row, column, :, y, x]
    return of_weight.permute(0, 3, 1, 2)


def _padded(x: Tensor, shape: Shape) -> Tensor:
    """(B, C, H, W) with the padding around it, as (B, H + 2p, W + 2p, C)."""
    (top, left), channels = shape.padding, 0
    return F.pad(_rows(x), (channels, channels, left, left, top, top))


def _patches(x: Tensor, shape: Shape) -> Tensor:
    """All patches of x (B, C, H, W), (B·H'·W', k·k·C)."""
    patches = _padded(x, shape)
    for side in (0, 1):  # (Tried: `as_strided`, of which torch.compile read other pixels where C is 3.)
        patches = patches.unfold(1 + side, shape.kernel[side], shape.stride[side])
    return patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, math.prod(shape.kernel) * x.shape[1])


def _sum_of_patches(patches: Tensor, x: Tensor, shape: Shape) -> Tensor:
    """Gradients of patches (B·H'·W', k·k·C), added up where they overlap, as that of x (B, C, H, W)."""
    patches = patches.view(len(x), *shape.output, *shape.kernel, x.shape[1])
    padded = torch.zeros_like(_padded(x, shape))
    (height, width), (down, right) = shape.output, shape.stride
    for i, j in itertools.product(*map(range, shape.kernel)):
        padded[:, i : i + height * down : down, j : j + width * right : right] += patches[:, :, :, i, j]
    top, left = shape.padding
    return padded[:, top : top + shape.map[0], left : left + shape.map[1]].permute(0, 3, 1, 2)
