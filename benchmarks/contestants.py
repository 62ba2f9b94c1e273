"""Contestants: each is a process of its own with all its workers, and only the one whose turn it is may run.

A data loader prepares batches ahead of time. Were it left running between its turns, it would slow down the others
and start its next turn with batches that cost it nothing; so all processes of a contestant are stopped (SIGSTOP) until
it is its turn again, and a turn ends with about as many batches under way as it began with. Apart, the peak memory of
each can be told, too: that of its process tree, without the file pages (libraries, memory maps) that all share.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from vissl_zoo.errors import UserError
from vissl_zoo.speed import synchronize

SAMPLES_PER_SECOND = 20  # of the memory
PATIENCE = 600.0  # seconds that a contestant may need to start or for a turn


class Missing(Exception):
    """A contestant that cannot take part, and why: usually a package that is not installed."""


@dataclass(frozen=True)
class Turn:
    """How many images were worked through in how many seconds, and processor seconds of all its processes."""

    images: int
    seconds: float
    processor_seconds: float | None = None  # where the system tells

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def processor_rate(self) -> float | None:
        """Images per second of one core's work: what a busy machine disturbs least."""
        return self.images / self.processor_seconds if self.processor_seconds else None


class Turns:
    """The contestant's side: it says that it is ready and then works when it is told to, for about so long."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def ready(self, **info: Any) -> None:
        """Say that all is set up, with whatever the parent should know."""
        self._connection.send(("ready", info))

    def run(self, unit: Callable[[], int], device: torch.device) -> None:
        """Repeat `unit`, which works and returns how many images it did, in every turn; returns after the last turn."""
        for seconds in self._lengths():
            images, start = 0, _now(device)
            while True:
                images += unit()
                if time.perf_counter() - start >= seconds:
                    break
            self._done(images, _now(device) - start)

    def feed(self, batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
        """For a loop that asks for its batches: hands them on as long as it is its turn; ends after the last one.

        A loop asks for the next batch when it has dealt with the one before, so the time between the first question
        and the one after the last batch is the loop's own.
        """
        batches = iter(batches)
        for seconds in self._lengths():
            images, start = 0, _now(device)
            while True:
                batch = next(batches)
                images += len(batch.images)
                yield batch
                if time.perf_counter() - start >= seconds:
                    break
            self._done(images, _now(device) - start)

    def _lengths(self) -> Iterator[float]:
        while (seconds := self._connection.recv()) is not None:
            yield seconds

    def _done(self, images: int, seconds: float) -> None:
        self._connection.send(("turn", Turn(images, seconds)))


class Contestant:
    """The parent's side of one process: started by the constructor, stopped between turns.

    Args:
        name: for messages.
        target: called in the process as target(turns, *arguments); it must be importable by name.
        arguments: of the target.

    Attributes:
        info: what it said when it was ready.
        start_seconds: how long that took.
        peak: bytes, the largest memory seen while it started and in `memory`; None where the system cannot tell.

    Raises:
        Missing: a package that it needs is not installed.
        UserError: the words of the one that it raised.
        RuntimeError: it failed otherwise, with its own words.
    """

    def __init__(self, name: str, target: Callable[..., None], *arguments: Any):
        self.name, self.peak = name, None
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        file, log = tempfile.mkstemp(prefix="contestant_", suffix=".log")
        os.close(file)
        self._log = Path(log)
        self._process = context.Process(target=_child, args=(theirs, target, arguments, log))
        start = time.perf_counter()
        self._process.start()
        theirs.close()
        try:
            with self._watched():
                self.info = self._receive("ready")
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        self._signal("SIGSTOP")

    def turn(self, seconds: float) -> Turn:
        """Let it work for about so long: whole units, one at least."""
        before = tree_processor_seconds(self._process.pid)
        self._signal("SIGCONT")
        self._connection.send(seconds)
        turn = self._receive("turn")
        self._signal("SIGSTOP")
        after = tree_processor_seconds(self._process.pid)
        return turn if after is None else replace(turn, processor_seconds=after - before)

    def memory(self, seconds: float) -> int | None:
        """Bytes at the peak, of its start and of a turn that is watched, which costs time and is not timed."""
        with self._watched():
            self.turn(seconds)
        return self.peak

    def close(self) -> None:
        """End it and its workers."""
        if self._process.pid and self._process.is_alive():
            self._signal("SIGCONT")
            try:
                self._connection.send(None)
                self._process.join(30)
            except (BrokenPipeError, OSError):
                pass
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._connection.close()
        self._log.unlink(missing_ok=True)

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, kind: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not self._connection.poll(1):
            if not self._process.is_alive() and not self._connection.poll():
                raise RuntimeError(f"{self.name} died (exit code {self._process.exitcode}): {self._said()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} has said nothing for {PATIENCE:.0f} s: {self._said()}")
        try:
            answer, value = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"{self.name} died: {self._said()}") from None
        if answer == "missing":
            raise Missing(value)
        if answer == "refused":
            raise UserError(value)
        if answer != kind:
            raise RuntimeError(f"{self.name} failed:\n{value}")
        return value

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]

    def _signal(self, name: str) -> None:
        """To the whole process group, which the child leads; on a system without signals all just run."""
        if hasattr(signal, name):
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(self._process.pid, getattr(signal, name))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Keep the largest memory seen in `peak`."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(1 / SAMPLES_PER_SECOND):
                now = tree_memory(self._process.pid)
                if now is not None:
                    self.peak = max(self.peak or 0, now)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def tree_memory(root: int) -> int | None:
    """Bytes of anonymous and shared memory of a process and its descendants; None where /proc does not tell.

    A page that several of them share is counted once, in proportional shares (PSS): workers are forks of their parent.
    """
    rollups = _read_tree(root, "smaps_rollup")
    lines = [line for rollup in rollups for line in rollup.splitlines()]
    kilobytes = sum(int(x.split()[1]) for x in lines if x.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return 1024 * kilobytes if rollups else None


def tree_processor_seconds(root: int) -> float | None:
    """Seconds that processors have worked for a process and its living descendants; None where /proc does not tell."""
    stats = [stat.rsplit(")", 1)[1].split() for stat in _read_tree(root, "stat")]  # a name may hold spaces
    ticks = sum(int(stat[11]) + int(stat[12]) for stat in stats)  # in user and in system mode
    return ticks / os.sysconf("SC_CLK_TCK") if stats else None


def _read_tree(root: int, name: str) -> list[str]:
    """/proc/PID/`name` of a process and its descendants; none off Linux."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError, ValueError):  # it has just ended
            found.append(Path(f"/proc/{pid}/{name}").read_text())
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def _child(connection: Connection, target: Callable[..., None], arguments: tuple, log: str) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, for the signals
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    sys.stdout.flush()
    os.dup2(out, 1)
    os.dup2(out, 2)
    try:
        target(Turns(connection), *arguments)
    except ImportError as error:
        connection.send(("missing", f"{error.name or error} is not installed"))
    except UserError as error:
        connection.send(("refused", str(error)))
    except EOFError:  # the parent is gone
        pass
    except BaseException:
        connection.send(("failed", traceback.format_exc()))


def _now(device: torch.device) -> float:
    synchronize(device)
    return time.perf_counter()
