"""bfloat16 is native where torch's own queries say so, and nowhere else."""

import platform

import pytest
import torch

from vissl_zoo.networks import bfloat16
from vissl_zoo.networks.bfloat16 import bfloat16_is_native

QUERIES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


AMD, INTEL = "vendor_id\t: AuthenticAMD\n", "vendor_id\t: GenuineIntel\n"


@pytest.mark.parametrize(
    "vendor, avx512_bf16, amx, native",
    [
        (AMD, True, False, True),
        (AMD, False, False, False),
        (INTEL, True, True, True),
        (INTEL, True, False, False),  # measured: slower than float32
        (INTEL, False, True, True),
        (INTEL, False, False, False),
    ],
)
def test_a_cpu_is_asked_for_amx_or_for_avx512_bf16_that_is_not_intels(
    vendor, avx512_bf16, amx, native, monkeypatch, tmp_path
):
    for name, answer in zip(QUERIES, (avx512_bf16, amx), strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{vendor}")
    monkeypatch.setattr(bfloat16, "CPU_INFO", tmp_path / "cpuinfo")
    assert bfloat16_is_native("cpu") is native


@pytest.mark.parametrize("processor, native", [("Intel64 Family 6, GenuineIntel", False), ("arm", True)])
def test_where_linux_says_nothing_the_platform_does(processor, native, monkeypatch, tmp_path):
    for name, answer in zip(QUERIES, (True, False), strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    monkeypatch.setattr(bfloat16, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: processor)
    assert bfloat16_is_native("cpu") is native


def test_a_torch_without_the_queries_computes_in_float32(monkeypatch):
    for name in QUERIES:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert bfloat16_is_native(torch.device("cpu")) is False


def test_a_device_that_torch_cannot_ask_computes_in_float32():
    assert bfloat16_is_native("meta") is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_asked_for_more_than_emulation():
    assert bfloat16_is_native("cuda") is torch.cuda.is_bf16_supported(including_emulation=False)
