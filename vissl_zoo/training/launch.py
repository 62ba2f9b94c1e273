"""Processes, devices, precision and trackers: they are accelerate's, and what it refuses is told in one line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from vissl_zoo.cpu.cores import take_cores
from vissl_zoo.cpu.device import keep_freed_memory
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.networks.bfloat16 import bfloat16_is_native
from vissl_zoo.recipes import Recipe
from vissl_zoo.training.folder_choice import newest_run


def start_accelerator(recipe: Recipe) -> Accelerator:
    """This process's device, threads, precision and place among the others."""
    installed = [str(tracker) for tracker in get_available_trackers()]
    if recipe.tracker not in (None, *installed):  # accelerate itself would warn and go on without
        known = ", ".join(installed) or "none"
        raise UserError(f"--tracker {recipe.tracker} is unknown or not installed (installed: {known})")
    processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    device = processes.device or torch.device("cpu")
    if device.type == "cpu":
        keep_freed_memory()
        if taken := take_cores(recipe.threads, processes.num_processes):
            processes.print(f"threads: {taken}")
    precision, _ = choose_precision(recipe, device)
    [precision] = broadcast_object_list([precision])  # machines may differ: the first one's counts
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            log_with=recipe.tracker,
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"accelerate refuses: {first_line(error)}") from error
    if accelerator.gradient_accumulation_steps != recipe.gradient_accumulation:
        raise UserError(
            f"accelerate was told to accumulate {accelerator.gradient_accumulation_steps} batches and the recipe "
            f"{recipe.gradient_accumulation}: say it with --gradient-accumulation alone"
        )
    return accelerator


def choose_precision(recipe: Recipe, device: torch.device) -> tuple[str, str]:
    """The precision of the backbone ("no", "fp16" or "bf16"), and why, for the user.

    A flag decides, then what accelerate was told, then the run that is resumed, then what the hardware can do.
    """
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower()
    if recipe.mixed_precision != "auto":
        return recipe.mixed_precision, "--mixed-precision"
    if told not in ("", "no"):  # "no" is what `accelerate launch` says where nobody told it anything
        return told, "as accelerate was told"
    if stored := _stored_precision(recipe):
        return stored, "as the run began"
    if recipe.dtype != "float32":
        return "no", "--dtype"
    if bfloat16_is_native(device):
        return "bf16", "the hardware computes in it"
    return "no", "bfloat16 is no faster on this hardware"


def describe_precision(recipe: Recipe, accelerator: Accelerator) -> str:
    """One line for the user."""
    precision, reason = accelerator.mixed_precision, choose_precision(recipe, accelerator.device)[1]
    return f"precision: {recipe.dtype if precision == 'no' else precision} ({reason})"


def start_tracker(recipe: Recipe, accelerator: Accelerator) -> None:
    """Open the recipe's tracker, if it names one."""
    if recipe.tracker is None:
        return
    try:
        accelerator.init_trackers("vissl_zoo")
    except Exception as error:  # whatever a foreign tracker comes up with: not logged in, no network, …
        raise UserError(f"--tracker {recipe.tracker}: {first_line(error)}") from error


@contextlib.contextmanager
def ending_together(accelerator: Accelerator, group: Any = None) -> Iterator[None]:
    """What the first process alone does inside, and cannot, ends all: the others would wait for it in vain.

    Args:
        accelerator: whose processes they are; all must come here.
        group: torch's group that they speak through, by default accelerate's own.

    Raises:
        UserError: on all processes, with what the first one met.
    """
    said: list[Any] = [None]
    try:
        yield
    except UserError as error:
        said = [str(error)]
    except OSError as error:
        said = [f"{error.filename}: {error.strerror}" if error.filename else str(error)]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(said, group=group)
    if said[0] is not None:
        raise UserError(said[0])


def _stored_precision(recipe: Recipe) -> str | None:
    """The precision of the run to be resumed, if any; if it cannot be read, `Run` will say so."""
    if recipe.resume == "off":
        return None
    folder = newest_run(recipe)
    try:
        return None if folder is None else json.loads((folder / "recipe.json").read_text())["mixed_precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return "no"
