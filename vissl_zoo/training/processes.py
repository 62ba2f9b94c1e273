"""Processes, devices and trackers: they are accelerate's, and what it refuses is told in one line."""

from __future__ import annotations

from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import parse_flag_from_env

from vissl_zoo.cpu.cores import take_cores
from vissl_zoo.errors import UserError
from vissl_zoo.recipes.base import Recipe
from vissl_zoo.training.precision import Precision


def start_processes(recipe: Recipe) -> PartialState:
    """This process's device, threads and place among the others; precision and all else come with the accelerator."""
    installed = [str(tracker) for tracker in get_available_trackers()]
    if recipe.tracker not in (None, *installed):  # accelerate itself would warn and go on without
        known = ", ".join(installed) or "none"
        raise UserError(f"--tracker {recipe.tracker} is unknown or not installed (installed: {known})")
    processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    if processes.device.type == "cpu" and (taken := take_cores(recipe.threads, processes.num_processes)):
        processes.print(f"threads: {taken}")
    return processes


def start_accelerator(recipe: Recipe, precision: Precision) -> Accelerator:
    """Devices, precision, gradient accumulation and processes are accelerate's."""
    try:
        accelerator = Accelerator(
            mixed_precision=precision.name,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            log_with=recipe.tracker,
            project_dir=recipe.output_dir,
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"accelerate refuses: {str(error).splitlines()[0]}") from error
    if accelerator.gradient_accumulation_steps != recipe.gradient_accumulation:
        raise UserError(
            f"accelerate was told to accumulate {accelerator.gradient_accumulation_steps} batches and the recipe "
            f"{recipe.gradient_accumulation}: say it with --gradient-accumulation alone"
        )
    return accelerator


def start_tracker(recipe: Recipe, accelerator: Accelerator) -> None:
    """Open the recipe's tracker, if it names one."""
    if recipe.tracker is None:
        return
    try:
        accelerator.init_trackers("vissl_zoo")
    except Exception as error:  # whatever a foreign tracker comes up with: not logged in, no network, …
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--tracker {recipe.tracker}: {reason}") from error
