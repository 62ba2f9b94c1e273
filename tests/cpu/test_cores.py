"""How many threads torch has, when nobody set them and when a launcher or the user did."""

import json
import os
import subprocess
import sys

import pytest
import torch

from vissl_zoo.cpu import cores
from vissl_zoo.cpu.cores import LAUNCHERS, take_cores
from vissl_zoo.errors import UserError

COUNT = cores.usable_cores  # the fixture below puts another in its place

pytestmark = pytest.mark.usefixtures("threads_kept")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """Of two threads each; nothing has been set."""
    monkeypatch.setattr(cores, "usable_cores", lambda physical: 8 if physical else 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for mark in (*LAUNCHERS, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(mark, raising=False)
    torch.set_num_threads(1)


@pytest.fixture(params=LAUNCHERS)
def launched(request, monkeypatch):
    """As a launcher starts a process; returns the launcher's name."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(request.param, "x")
    return LAUNCHERS[request.param]


@pytest.mark.parametrize(("processes", "share"), [(1, 8), (2, 4), (3, 2)])
def test_one_thread_of_a_launcher_becomes_a_share_of_the_cores(launched, processes, share):
    assert take_cores(None, processes) == f"{share} ({launched} had left 1; --threads)"
    assert torch.get_num_threads() == share


def test_processes_of_other_machines_take_none_of_these_cores(launched, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    take_cores(None, 16)
    assert torch.get_num_threads() == 4


def test_more_processes_than_cores_have_one_thread_each(launched):
    assert take_cores(None, 16) is None
    assert torch.get_num_threads() == 1


def test_one_thread_that_the_user_asks_for_stays(launched):
    assert take_cores(1) is None
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("threads", [-1, 0, 17, 100_000])
def test_threads_that_the_machine_does_not_have_are_refused(threads):
    with pytest.raises(UserError, match=f"--threads must lie between 1 and 16, .* not {threads}$"):
        take_cores(threads)


def test_other_limits_are_the_users(launched, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert take_cores(None) is None
    assert torch.get_num_threads() == 1


def test_without_a_launcher_torch_decides(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert take_cores(None) is None
    assert torch.get_num_threads() == 1


def test_the_flag_sets_them_anywhere():
    assert take_cores(3) is None
    assert torch.get_num_threads() == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinities")
def test_affinity_is_heard():
    bound = f"""if True:
        import os, sys
        os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})
        from vissl_zoo.cpu.cores import usable_cores
        print(usable_cores(), usable_cores(physical=True))"""
    done = subprocess.run([sys.executable, "-c", bound], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 1"


@pytest.mark.parametrize(
    ("quota", "cpus", "physical"),
    [("max 100000", 8, 4), ("300000 100000", 3, 3), ("50000 100000", 1, 1), ("", 8, 4), (None, 8, 4)],
)
def test_a_containers_quota_and_threads_of_one_core(quota, cpus, physical, tmp_path, monkeypatch):
    """Eight CPUs in four cores, as a made-up /sys describes them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "SYSTEM", tmp_path)
    for cpu in range(8):
        topology = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    if quota is not None:
        (tmp_path / "fs/cgroup").mkdir(parents=True)
        (tmp_path / "fs/cgroup/cpu.max").write_text(quota + "\n")
    assert (COUNT(), COUNT(physical=True)) == (cpus, physical)


@pytest.mark.parametrize(
    ("launcher", "module", "processes"),
    [
        ("accelerate launch", ["accelerate.commands.launch"], 1),
        ("torchrun", ["torch.distributed.run", "--nproc_per_node", "2"], 2),
    ],
)
def test_launchers_still_allow_one_thread_and_leave_their_mark(launcher, module, processes, tmp_path):
    script = tmp_path / "environment.py"
    names = ["OMP_NUM_THREADS", *LAUNCHERS]
    script.write_text(
        "import json, os, pathlib\n"
        f"found = {{n: os.environ[n] for n in {names} if n in os.environ}}\n"
        f"pathlib.Path({str(tmp_path)!r}, f'{{os.getpid()}}.json').write_text(json.dumps(found))\n"
    )
    subprocess.run([sys.executable, "-m", *module, str(script)], capture_output=True, check=True)
    for found in tmp_path.glob("*.json"):
        environment = json.loads(found.read_text())
        assert environment["OMP_NUM_THREADS"] == "1"
        assert [name for mark, name in LAUNCHERS.items() if mark in environment] == [launcher]
    assert len(list(tmp_path.glob("*.json"))) == processes
