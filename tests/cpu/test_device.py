"""Where commands compute."""

import pytest
import torch

from vissl_zoo.cpu import device


@pytest.mark.parametrize("gpu, expected, kept", [(True, "cuda", 0), (False, "cpu", 1)])
def test_the_gpu_if_there_is_one_else_a_cpu_that_keeps_memory(gpu, expected, kept, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(device, "keep_freed_memory", lambda: calls.append(1))
    assert device.take_device().type == expected
    assert len(calls) == kept
