"""Projector and predictor: the paper's networks (App. B), and what a batch norm makes superfluous."""

import pytest
import torch
from torch import nn

from vissl_zoo.networks.projection import predictor, projector


def described(network: nn.Sequential) -> list[tuple]:
    """Kind, widths and whether there is a bias (of a batch norm: scale and shift) of each layer."""
    found = []
    for layer in network:
        if isinstance(layer, nn.Linear):
            found.append(("linear", layer.in_features, layer.out_features, layer.bias is not None))
        elif isinstance(layer, nn.BatchNorm1d):
            found.append(("norm", layer.num_features, layer.affine))
        else:
            found.append((type(layer).__name__,))
    return found


def test_projector_of_appendix_b():
    assert described(projector(512, 512, 2048, output_norm=False)) == [
        ("linear", 512, 512, False),
        ("norm", 512, True),
        ("ReLU",),
        ("linear", 512, 2048, True),
    ]


def test_output_norm_takes_the_place_of_the_bias():
    *_, last, norm = described(projector(96, 64, 32, output_norm=True))
    assert last == ("linear", 64, 32, False)
    assert norm == ("norm", 32, False)


def test_predictor_of_appendix_b():
    assert described(predictor(2048, 512)) == [
        ("linear", 2048, 512, False),
        ("norm", 512, True),
        ("ReLU",),
        ("linear", 512, 2048, True),
    ]


def test_output_norm_centres_and_scales_every_dimension():
    torch.manual_seed(0)
    z = projector(24, 16, 8, output_norm=True)(torch.randn(256, 24))
    assert z.shape == (256, 8)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.ones(8), atol=1e-3, rtol=0)


def test_no_bias_before_a_batch_norm_changes_nothing_that_a_bias_could():
    """Shifting what goes into the norm leaves its output where it was."""
    torch.manual_seed(0)
    network, x = predictor(8, 16).double(), torch.randn(32, 8, dtype=torch.float64)
    linear, *rest = network
    shifted = nn.Sequential(*rest)(linear(x) + torch.randn(16, dtype=torch.float64))
    torch.testing.assert_close(shifted, network(x))


@pytest.mark.parametrize("widths", [(0, 4, 4), (4, 0, 4), (4, -1, 4), (4, 4, 0)])
@pytest.mark.parametrize("output_norm", [True, False])
def test_widths_must_be_positive(widths, output_norm):
    with pytest.raises(ValueError, match="at least 1"):
        projector(*widths, output_norm=output_norm)


@pytest.mark.parametrize("widths", [(0, 4), (4, 0), (-3, 4)])
def test_widths_of_the_predictor_must_be_positive(widths):
    with pytest.raises(ValueError, match="at least 1"):
        predictor(*widths)
