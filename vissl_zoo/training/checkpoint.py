"""Checkpoints as safetensors and JSON: nothing in them can run code when they are read.

accelerate's own `save_state` pickles the optimizer and the random states. Here there is no random state to keep,
since images, views and dropout are drawn from the seed and the step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vissl_zoo.errors import UserError, first_line
from vissl_zoo.training.checkpoint_manifest import fault, force_to_disk, remove_folder, seal

_WEIGHTS, _OPTIMIZER, _STATE = "method.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    folder: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Any],
    keep: int = 1,
) -> Path:
    """Write `folder`/step_N, whole or not at all and onto the disk, then remove old checkpoints.

    Args:
        folder: the run's checkpoints.
        step: optimizer steps done.
        method: its state dict is kept, in its own precision.
        optimizer: its per-parameter tensors are kept (SGD: the momentum).
        extra: plain values that a resumed run needs.
        keep: how many checkpoints stay, this one included.

    Raises:
        UserError: it cannot be written, for want of space or otherwise; the earlier ones stay.
    """
    try:
        return _save(folder, step, method, optimizer, extra, keep)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"the checkpoint of step {step} cannot be written: {first_line(error)}") from error


def _save(
    folder: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Any],
    keep: int,
) -> Path:
    target, unfinished = folder / f"step_{step:07d}", folder / ".unfinished"
    for left in folder.glob(".*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, unfinished / _WEIGHTS)
    tensors, scalars = {}, {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.contiguous()
            elif value is not None:
                scalars[f"{index}.{name}"] = value
    save_file(tensors, unfinished / _OPTIMIZER)
    (unfinished / _STATE).write_text(json.dumps({"step": step, "optimizer": scalars, **extra}, indent=1))
    seal(unfinished)
    if target.exists():  # damaged, and the run went on from an earlier one
        remove_folder(target)
    unfinished.rename(target)
    force_to_disk(folder)
    for old in _newest_first(folder)[keep:]:
        remove_folder(old)
    return target


def newest_checkpoint(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The checkpoint with the most steps that is as it was written, or None; and what is wrong with newer ones."""
    faults: dict[Path, str] = {}
    for checkpoint in _newest_first(folder):
        if (wrong := fault(checkpoint)) is None:
            return checkpoint, faults
        faults[checkpoint] = wrong
    return None, faults


def set_aside(damaged: Iterable[Path]) -> None:
    """Give damaged checkpoints names that no longer count as checkpoints; they are for people to look at."""
    for checkpoint in damaged:
        aside = checkpoint.with_name(f"damaged_{checkpoint.name}")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), key=lambda path: (len(path.name), path.name), reverse=True)


def load_checkpoint(checkpoint: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore method and optimizer in place; returns what `state.json` holds.

    Raises:
        UserError: the checkpoint is damaged or belongs to another model.
    """
    try:
        weights = load_file(checkpoint / _WEIGHTS)
        tensors = load_file(checkpoint / _OPTIMIZER)
        state = json.loads((checkpoint / _STATE).read_text())
        method.load_state_dict(weights)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        per_parameter: dict[int, dict[str, Any]] = {}
        for key, value in {**tensors, **state["optimizer"]}.items():
            index, name = key.split(".", 1)
            per_parameter.setdefault(int(index), {})[name] = _laid_out_as(parameters[int(index)], value)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": per_parameter, "param_groups": groups})
        return {"step": int(state["step"]), "seconds": float(state["seconds"]), **state}
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{checkpoint} cannot be resumed: {reason}") from error


def _laid_out_as(parameter: torch.Tensor, value: Any) -> Any:
    """A state of the parameter in the parameter's memory format, which a file does not keep.

    A fused optimizer walks through both in memory order: on a channels-last weight with a contiguous momentum it
    gives every element the momentum of another, without a word.
    """
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
