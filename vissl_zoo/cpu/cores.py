"""How many cores this process may use, and torch's threads on them."""

from __future__ import annotations

import os
from pathlib import Path

from vissl_zoo.errors import UserError

# What each launcher sets in every process that it starts, beside OMP_NUM_THREADS.
LAUNCHERS = {"ACCELERATE_DYNAMO_BACKEND": "accelerate launch", "TORCHELASTIC_RUN_ID": "torchrun"}
SYSTEM = Path("/sys")


def usable_cores(*, physical: bool = False) -> int:
    """How many CPUs this process may use: affinity and a container's quota are heeded.

    Of the `physical` ones those that share their arithmetic units count as one.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
        cores = len({_core(cpu) for cpu in cpus} if physical else cpus)
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = (SYSTEM / "fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or a quota of "max"
        return cores


def _core(cpu: int) -> str:
    """The CPUs of the same core, as the system names them."""
    try:
        return (SYSTEM / f"devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def take_cores(threads: int | None, processes: int = 1) -> str | None:
    """Set torch's threads in this process; returns what was done if nobody asked for it.

    Left to themselves `accelerate launch` without --cpu and torchrun allow one thread, and a training on a CPU would
    have one core of however many. A limit of 1 that a launcher may have set is therefore raised to this process's
    share of the cores; from the user it cannot be told, who says `threads`. Any other limit is left as it is.

    Args:
        threads: how many; None to decide here.
        processes: how many there are; of those that a launcher started on this machine it leaves word itself.

    Raises:
        UserError: `threads` is less than 1 or more than this machine runs at a time.
    """
    import torch  # here, so that counting cores loads no torch

    launcher = next((name for mark, name in LAUNCHERS.items() if mark in os.environ), None)
    if threads is not None:
        most = os.cpu_count() or threads
        if not 1 <= threads <= most:  # of thousands the system would start some, and end the process
            raise UserError(f"--threads must lie between 1 and {most}, what this machine has, not {threads}")
        torch.set_num_threads(threads)
    elif launcher is not None and os.environ.get("OMP_NUM_THREADS") == "1":
        share = usable_cores(physical=True) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or processes))
        if share > 1:
            torch.set_num_threads(share)
            return f"{share} ({launcher} had left 1; --threads)"
    return None
