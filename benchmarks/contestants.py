"""Contestants: each is a process of its own with all its workers, and only the one whose turn it is may run.

A data loader prepares batches ahead of time. Were it left running between its turns, it would slow down the others
and start its next turn with batches that cost it nothing; so all processes of a contestant are stopped (SIGSTOP) until
it is its turn again, and a turn ends with about as many batches under way as it began with.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import say, synchronize

from vissl_zoo.errors import UserError

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

    Raises:
        Missing: a package that it needs is not installed.
        UserError: the words of the one that it raised.
        RuntimeError: it failed otherwise, with its own words.
    """

    def __init__(self, name: str, target: Callable[..., None], *arguments: Any):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        file, log = tempfile.mkstemp(prefix="contestant_", suffix=".log")
        os.close(file)
        self._log = Path(log)
        self._process = context.Process(target=_child, args=(theirs, target, arguments, log))
        self._process.start()
        theirs.close()
        try:
            self.info = self._receive("ready")
        except BaseException:
            self.close()
            raise
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


def take_turns(started: dict[str, Contestant], repeats: int, seconds: float) -> dict[str, list[Turn]]:
    """The turns of each contestant, one after the other, after one of each that does not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in started}
    for repeat in range(repeats + 1):
        taken = {name: contestant.turn(seconds) for name, contestant in started.items()}
        say(f"turn {repeat} of {repeats}: {', '.join(f'{n} {turn.rate:.4g}/s' for n, turn in taken.items())}")
        for name, turn in taken.items():
            if repeat:
                turns[name].append(turn)
    return turns


def processor_ratio(ours: list[Turn], peer: list[Turn]) -> float | None:
    """Median ratio of images for one core's second; None where the system does not tell."""
    pairs = [(a.processor_rate, b.processor_rate) for a, b in zip(ours, peer, strict=True)]
    return None if any(None in pair for pair in pairs) else median(a / b for a, b in pairs)


def tree_processor_seconds(root: int) -> float | None:
    """Seconds that processors have worked for a process and its living descendants; None where /proc does not tell."""
    ticks, found, waiting = 0, False, [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError, ValueError):  # it has just ended, or there is no /proc
            stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()  # a name may hold spaces
            ticks, found = ticks + int(stat[11]) + int(stat[12]), True  # in user and in system mode
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK") if found else None


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
