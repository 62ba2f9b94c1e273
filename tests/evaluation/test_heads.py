"""Projector and predictor run from their tensors as the modules that were trained run."""

import pytest
import torch

from vissl_zoo.evaluation.heads import apply_head, has_head
from vissl_zoo.methods.simclr import SimCLR
from vissl_zoo.methods.simsiam import SimSiam


def tensors(method) -> dict[str, torch.Tensor]:
    return {f"{name}.{k}": v for name, head in method.heads().items() for k, v in head.state_dict().items()}


@pytest.fixture
def method(model):
    """method(**options) -> a SimSiam whose batch norms have seen something."""

    def method(**options):
        torch.manual_seed(0)
        made = SimSiam(model, hidden=24, **options)
        for _ in range(3):
            z = made.projector(torch.randn(32, model.num_features) * 2 + 1)
            made.predictor(z)
        return made.eval()

    return method


@pytest.mark.parametrize("output_norm", [True, False])
def test_the_mlps_are_those_of_training(method, model, output_norm):
    made = method(output_norm=output_norm)
    heads = tensors(made)
    y = torch.randn(5, model.num_features)
    with torch.no_grad():
        z_tilde, expected = made.projector(y), made.predictor(made.projector(y))
    torch.testing.assert_close(apply_head(heads, "projector", y), z_tilde)
    torch.testing.assert_close(apply_head(heads, "predictor", z_tilde), expected)
    alone = apply_head(heads, "projector", y[:1])  # statistics are the training's, not the batch's
    torch.testing.assert_close(alone, z_tilde[:1], atol=1e-5, rtol=1e-4)


def test_what_is_there_is_told(method, model):
    assert [has_head(tensors(method()), name) for name in ("projector", "predictor")] == [True, True]
    direct = tensors(method(predictor="direct"))
    assert [has_head(direct, name) for name in ("projector", "predictor")] == [True, False]
    simclr = tensors(SimCLR(model, hidden=24))
    assert [has_head(simclr, name) for name in ("projector", "predictor")] == [True, False]
    assert not has_head(None, "projector")
    assert not has_head({}, "projector")


def test_what_does_not_fit_is_refused(method):
    heads = tensors(method())
    with pytest.raises(ValueError, match=r"takes .* features, not 3"):
        apply_head(heads, "projector", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no MLP called predictor"):
        apply_head({k: v for k, v in heads.items() if "projector" in k}, "predictor", torch.zeros(2, 16))
