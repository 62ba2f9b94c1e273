"""Work in several threads at once: torch's own where they can be had, else a pool, and so in a forked process."""

import os
import threading

import pytest
import torch

from vissl_zoo.views import team

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
        team.work_together(work)
    assert len(met) == 3 * threads
    assert set(met[:threads]) == set(met[threads:-threads]) == set(met[-threads:])
    assert threading.get_ident() in met


def test_a_failure_is_raised_when_all_are_done(threads):
    done, lock = [], threading.Lock()

    def work():
        with lock:
            done.append(threading.get_ident())
            first = len(done) == 1
        if first:
            raise KeyError("one of them")

    with pytest.raises(KeyError, match="one of them"):
        team.work_together(work)
    assert len(done) == threads
    team.work_together(lambda: None)  # and the threads are as they were


def test_one_thread_is_the_callers():
    before, here = torch.get_num_threads(), []
    torch.set_num_threads(1)
    team.work_together(lambda: here.append(threading.get_ident()))
    torch.set_num_threads(before)
    assert here == [threading.get_ident()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_the_team_is_torchs_own_and_not_for_a_forked_process(monkeypatch):
    if team.torch_team() is None:
        pytest.skip("torch has no GNU OpenMP here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(10**6).add(1)  # starts torch's threads, if nothing has yet
    running, seen, names = len(os.listdir("/proc/self/task")), [], []
    team.work_together(lambda: seen.append(len(os.listdir("/proc/self/task"))))
    monkeypatch.setattr(team, "_PROCESS", os.getpid() + 1)
    barrier = threading.Barrier(2)

    def work():
        barrier.wait(PATIENCE)
        names.append(threading.current_thread().name)

    team.work_together(work)
    torch.set_num_threads(before)
    assert set(seen) == {running}  # no thread more
    assert any(name.startswith("views") for name in names)
