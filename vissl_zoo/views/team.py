"""Threads that work on the same views: torch's own, where they can be had."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch

_MEMBER = ctypes.CFUNCTYPE(None)  # it is called with an address, and takes no notice of it
_PROCESS = os.getpid()


def work_together(work: Callable[[], None], threads: int) -> None:
    """Call `work` in `torch.get_num_threads()` threads at once, this one among them; returns when all are done.

    torch's OpenMP threads do not sleep when torch has nothing for them: for a millisecond they wait in a loop, ready
    for its next operation. Threads beside them got half of a core each, and two took as long as one. So the work is
    given to those very threads, by GNU OpenMP's own entry point, where torch brings that library (on Linux). They do
    not survive a fork: a forked process, like other systems, has a pool of Python's. On cores that another process
    keeps busy a pool is faster, as one thread is faster still.

    Args:
        work: compiled code and no Python, and it raises nothing: Python would lose an exception, and would run the
            handler of a signal there, the KeyboardInterrupt of which would be lost, too.
        threads: as many as torch has. (GNU OpenMP ends those that a smaller team has no use for.)
    """
    start = None if is_forked() else torch_team()
    if start is not None:
        start(_MEMBER(work), None, threads, 0)
        return
    pool = helpers(threads - 1, os.getpid())
    waiting = [pool.submit(work) for _ in range(threads - 1)]
    work()
    for other in waiting:  # not `wait`, which keeps locks that it has taken when a signal interrupts it
        other.result()


def is_forked() -> bool:
    """Whether threads that the parent had may be missing; of an `os.fork` before this import nothing is known."""
    if os.getpid() != _PROCESS:
        return True
    # Of get_context("fork"), whatever the default is.
    by_name = getattr(multiprocessing.context, "ForkProcess", ())
    by_default = multiprocessing.parent_process() is not None and (
        multiprocessing.get_start_method(allow_none=True) in (None, "fork")
    )
    return by_default or isinstance(multiprocessing.current_process(), by_name)


@lru_cache(maxsize=1)
def torch_team() -> Callable[..., None] | None:
    """`GOMP_parallel(function, argument, threads, flags)` of the library that torch computes with; None without one."""
    own = sorted(Path(torch.__file__).parent.glob("lib/libgomp*"))
    for library in (None, *own):  # what all see comes first for torch, too
        try:
            start = ctypes.CDLL(library and str(library), mode=os.RTLD_NOLOAD).GOMP_parallel
        except (OSError, AttributeError, TypeError):  # not loaded; no such call; no such system
            continue
        start.argtypes, start.restype = [_MEMBER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return start
    return None


@lru_cache(maxsize=1)
def helpers(number: int, process: int) -> ThreadPoolExecutor:
    """Threads beside the caller's, the latest number alone. By process: a forked one does not have its parent's."""
    return ThreadPoolExecutor(number, thread_name_prefix="views")
