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


@pytest.mark.parametrize("minutes, over", [(None, False), (1e-9, True), (60.0, False)])
def test_time_runs_out(minutes, over):
    run = SimpleNamespace(recipe=SimpleNamespace(max_minutes=minutes), _started=time.monotonic() - 1)
    assert Run.out_of_time.fget(run) == over
