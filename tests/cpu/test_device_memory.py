"""Freed memory stays with the process: the second use of a block meets no page fault."""

import json
import platform
import subprocess
import sys

import pytest

from vissl_zoo.cpu import device
from vissl_zoo.cpu.device import keep_freed_memory

# In a process of its own: what is set is set for good.
SCRIPT = """
import json, resource
import torch
from vissl_zoo.cpu.device import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (64, 40, 8, 8):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
kept = keep_freed_memory()
faults()
print(json.dumps([before, kept, min(faults() for _ in range(3))]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone can be told")
def test_no_page_faults_the_second_time():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, kept, after = json.loads(done.stdout)
    assert kept is True
    # 120 MiB are 30,720 pages of 4 KiB, fewer where the system hands out larger ones
    assert before > 20
    assert after < before / 4  # none, but for a block that finds no gap of its size


@pytest.mark.parametrize("library", ["", "musl"])
def test_elsewhere_nothing_happens(monkeypatch, library):
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    monkeypatch.setattr(device.ctypes, "CDLL", None)  # would raise if it were called
    assert keep_freed_memory() is False


def test_a_library_without_the_call(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
