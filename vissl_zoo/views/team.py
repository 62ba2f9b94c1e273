"""Threads that work on the same views: torch's own, where they can be had."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PROCESS = os.getpid()


def work_together(work: Callable[[], None]) -> None:
    """Call `work` in as many threads as torch has, this one among them; returns, or raises, when all are done.

    torch's OpenMP threads do not sleep when torch has nothing for them: for a millisecond they wait in a loop, ready
    for its next operation. Threads beside them got half of a core each, and two took as long as one. So the work is
    given to those very threads, by GNU OpenMP's own entry point, where torch brings that library (on Linux). They do
    not survive a fork: a forked process, like other systems, has a pool of Python's.
    """
    threads = torch.get_num_threads()  # always all: GNU OpenMP ends those that a smaller team has no use for
    if threads < 2:
        work()
    elif (start := torch_team()) is not None and os.getpid() == _PROCESS:
        failures: list[BaseException] = []

        def member(_: Any) -> None:
            try:
                work()
            except BaseException as failure:  # ctypes would print and forget it
                failures.append(failure)

        start(_MEMBER(member), None, threads, 0)
        if failures:
            raise failures[0]
    else:
        pool = helpers(threads - 1, os.getpid())
        waiting = [pool.submit(work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            wait(waiting)
        for other in waiting:
            other.result()


@lru_cache(maxsize=1)
def torch_team() -> Callable[..., None] | None:
    """`GOMP_parallel(function, argument, threads, flags)` of the library that torch has loaded; None without one."""
    for file in sorted(Path(torch.__file__).parent.glob("lib/libgomp*")):
        try:
            start = ctypes.CDLL(str(file), mode=os.RTLD_NOLOAD).GOMP_parallel
        except (OSError, AttributeError):  # it lies there, but torch has another one
            continue
        start.argtypes, start.restype = [_MEMBER, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
        return start
    return None


@lru_cache(maxsize=1)
def helpers(number: int, process: int) -> ThreadPoolExecutor:
    """Threads beside the caller's, the latest number alone. By process: a forked one does not have its parent's."""
    return ThreadPoolExecutor(number, thread_name_prefix="views")
