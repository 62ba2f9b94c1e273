"""bfloat16 is native where torch's own queries say so, and nowhere else."""

import pytest
import torch

from vissl_zoo.networks.bfloat16 import bfloat16_is_native

QUERIES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize("answers", [(True, False), (False, True), (False, False)])
def test_a_cpu_is_asked_for_avx512_bf16_and_amx(answers, monkeypatch):
    for name, answer in zip(QUERIES, answers, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    assert bfloat16_is_native("cpu") is any(answers)


def test_a_torch_without_the_queries_computes_in_float32(monkeypatch):
    for name in QUERIES:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert bfloat16_is_native(torch.device("cpu")) is False


def test_a_device_that_torch_cannot_ask_computes_in_float32():
    assert bfloat16_is_native("meta") is False


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_asked_for_more_than_emulation():
    assert bfloat16_is_native("cuda") is torch.cuda.is_bf16_supported(including_emulation=False)
