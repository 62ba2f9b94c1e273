"""A run folder keeps its last good checkpoint; its time runs out without the device being asked at every step."""

import time
from types import SimpleNamespace

import pytest
import torch

from vissl_zoo.errors import UserError
from vissl_zoo.training import Run


def test_weights_that_are_no_numbers_are_not_saved():
    """The loss need not feel them."""
    method = torch.nn.Linear(2, 1)
    method.weight.data[0, 1] = torch.nan
    objective = SimpleNamespace(loss=torch.tensor(1.0))
    with pytest.raises(UserError, match="weight is no longer finite at step 7"):
        Run.save(SimpleNamespace(step=7), method, None, objective)


class Asked:
    """An accelerator that notes at which steps its processes were asked; another process says `other`."""

    def __init__(self, processes, other=0.0, device="cpu"):
        self.num_processes, self.other, self.at = processes, other, []
        self.device = torch.device(device)

    def out_of_time(self, minutes, step):
        run = SimpleNamespace(
            recipe=SimpleNamespace(max_minutes=minutes),
            accelerator=self,
            step=step,
            _started=time.monotonic(),
        )
        self.step, self.minutes = step, minutes
        return Run.out_of_time.fget(run)

    def reduce(self, flag, how):
        assert how == "sum"
        assert flag.device == self.device
        self.at.append(self.step)
        own = float(self.minutes < 1)  # what stands in a tensor of meta nobody can read
        return torch.tensor(own + self.other)


@pytest.mark.parametrize("processes", [1, 2])
def test_without_a_limit_time_never_runs_out(processes):
    asked = Asked(processes, other=1.0)
    assert not any(asked.out_of_time(None, step) for step in range(1, 40))
    assert asked.at == []


@pytest.mark.parametrize("minutes, over", [(1e-9, True), (60.0, False)])
def test_one_process_asks_nobody(minutes, over):
    asked = Asked(1)
    assert {asked.out_of_time(minutes, step) for step in range(1, 40)} == {over}
    assert asked.at == []


@pytest.mark.parametrize("device, asked_at", [("cpu", list(range(1, 31))), ("meta", [10, 20, 30])])
def test_several_processes_stop_at_the_same_step(device, asked_at):
    """Also one whose own time is not over; on accelerators they ask each other at every tenth step."""
    asked = Asked(2, other=1.0, device=device)
    assert [step for step in range(1, 31) if asked.out_of_time(60.0, step)] == asked.at == asked_at
    asked = Asked(2, device=device)
    assert not any(asked.out_of_time(60.0, step) for step in range(1, 31))
    assert [step for step in range(1, 31) if asked.out_of_time(1e-9, step)] == asked_at
