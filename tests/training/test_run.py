"""A run folder keeps its last good checkpoint."""

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
