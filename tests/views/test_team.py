"""Work in several threads at once: torch's own where they can be had, else a pool, and so in a forked process."""

import os
import signal
import threading

import pytest
import torch

from vissl_zoo.views import ViewPipeline, team

PATIENCE = 20  # seconds that a thread waits for the others


@pytest.fixture(params=["torch's", "a pool's"])
def threads(request, monkeypatch):
    """Three of them, of torch's team or of a pool."""
    if request.param == "a pool's":
        monkeypatch.setattr(team, "torch_team", lambda: None)
    elif team.torch_team() is None:
        pytest.skip("torch has no GNU OpenMP here")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_all_work_at_once(threads):
    barrier, met = threading.Barrier(threads), []

    def work():
        barrier.wait(PATIENCE)  # who comes alone is left there
        met.append(threading.get_ident())

    for _ in range(3):
        team.work_together(work, threads)
    assert len(met) == 3 * threads
    assert set(met[:threads]) == set(met[threads:-threads]) == set(met[-threads:])
    assert threading.get_ident() in met


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_team_is_torchs_own_and_not_for_a_forked_process(monkeypatch):
    if team.torch_team() is None:
        pytest.skip("torch has no GNU OpenMP here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(10**6).add(1)  # starts torch's threads, if nothing has yet
    running, found, barrier = {int(task) for task in os.listdir("/proc/self/task")}, [], threading.Barrier(2)

    def work():
        barrier.wait(PATIENCE)
        found.append((threading.get_native_id(), threading.current_thread().name))

    team.work_together(work, 2)
    monkeypatch.setattr(team, "_PROCESS", os.getpid() + 1)
    team.work_together(work, 2)
    torch.set_num_threads(before)
    own, forked = found[:2], found[2:]
    assert {thread for thread, _ in own} <= running  # no new one
    assert any(name.startswith("views") for _, name in forked)


class Interrupt(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_no_signal_is_lost_while_views_are_rendered():
    """Python would run the handler in a callback, from which no exception gets out, if that held any Python."""
    if team.torch_team() is None:
        pytest.skip("torch has no GNU OpenMP here")
    ran = caught = 0

    def handler(*_):
        nonlocal ran
        ran += 1
        raise Interrupt

    pipeline, images = ViewPipeline(32), torch.zeros(32, 3, 32, 32, dtype=torch.uint8)
    sizes = torch.full((32, 2), 32)
    pipeline(images, sizes, 0)  # compiled
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for turn in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0001 * turn)
                while ran == caught:
                    pipeline(images, sizes, turn)
            except Interrupt:
                caught += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ran == caught == 60


@pytest.mark.parametrize("method, forked", [("fork", True), (None, True), ("spawn", False)])
def test_a_child_of_multiprocessing_may_be_forked(monkeypatch, method, forked):
    assert not team.is_forked()
    monkeypatch.setattr(team.multiprocessing, "parent_process", lambda: object())
    monkeypatch.setattr(team.multiprocessing, "get_start_method", lambda allow_none: method)
    assert team.is_forked() == forked
