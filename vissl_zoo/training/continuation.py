"""Whether a run can go on with what the command says now, and what of it is then no longer exact."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from vissl_zoo.errors import UserError
from vissl_zoo.output import flat

# What may differ between a run and its continuation: nothing that a step depends on, rounding apart.
_FREE = {
    "name",
    "output_dir",
    "overwrite",
    "resume",
    "resume_force",
    "log_every",
    "save_every",
    "save_minutes",
}
_FREE |= {"keep_checkpoints", "max_minutes", "tracker", "report", "report_images", "data.workers"}
_FREE |= {"data.eval_split", "compile", "threads", "profile", "continued"}
# `mixed_precision` and `device` say what became of the first and the last, and the second must be the recipe's.
_FREE |= {
    f"environment.ACCELERATE_{name}" for name in ("MIXED_PRECISION", "GRADIENT_ACCUMULATION_STEPS", "USE_CPU")
}
# What --resume-force accepts, and what that makes of the run.
_FORCED = {
    "processes": "sums round in another order, and dropout and the log's deviations are drawn anew",
    "batch_size": "batches, views and learning rates are others from here on",
    "gradient_accumulation": "batches, views and learning rates are others from here on",
    "data.path": "the images are the same",
    "environment": "accelerate computes in another way",
}
STREAM = "a stream"  # of `images`
_ROUNDING = {"torch_threads": "threads", "device": "device"}  # told, and never refused
_UNSET = ("", "no", "none", "false", "0", "default")  # what accelerate's launcher sets where nobody asked


def surroundings(accelerator: Accelerator) -> dict[str, Any]:
    """What a run depends on beside its recipe, for recipe.json."""
    told = {k: v for k, v in sorted(os.environ.items()) if k.startswith("ACCELERATE_")}
    return {
        "processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "torch_threads": torch.get_num_threads(),
        "environment": {k: v for k, v in told.items() if v.lower() not in _UNSET},
    }


def check_continuation(before: Mapping[str, Any], now: Mapping[str, Any], *, force: bool) -> list[str]:
    """Compare what recipe.json says with what it would say now; returns a line for all that is not exact.

    Args:
        before: of the run.
        now: of the command, in the same form.
        force: whether --resume-force is given.

    Raises:
        UserError: a difference that is not accepted; it names them all.
    """
    then, now = (flat(json.loads(json.dumps(described))) for described in (before, now))
    changed = sorted(k for k in then.keys() | now.keys() if k not in _FREE and then.get(k) != now.get(k))
    told = [k for k in changed if k in _ROUNDING]
    refused = [k for k in changed if k not in _ROUNDING]
    moved = (
        now["images"] != STREAM
    )  # a stream has no fingerprint that would tell that its images are the same
    forcible = [k for k in refused if _reason(k) is not None and (moved or k != "data.path")]
    if refused and not (force and refused == forcible):
        hint = "; --resume-force accepts that" if refused == forcible else ""
        differences = ", ".join(_difference(k, then, now) for k in refused)
        raise UserError(f"was started with other values of {differences}{hint}")
    lines = [f"{_difference(k, then, now)}: {_reason(k)}" for k in refused]
    if now["device"] == "cpu" or "device" in told:  # an accelerator's host does not compute the steps
        lines += [f"{_difference(k, then, now)}: equal to rounding, and not bit for bit" for k in told]
    return lines


def _reason(key: str) -> str | None:
    return _FORCED.get(key) or _FORCED.get(key.partition(".")[0])


def _difference(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if key == "images":
        return "the images"  # whose fingerprints tell nobody anything
    name = _ROUNDING.get(key, key)
    if key not in ("processes", *_ROUNDING) and not key.startswith("environment."):
        name = "--" + key.replace("_", "-")
    return f"{name.removeprefix('environment.')} ({then.get(key)}, now {now.get(key)})"
