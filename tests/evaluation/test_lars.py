"""LARS against a hand-written NumPy step."""

import numpy as np
import pytest
import torch

from vissl_zoo.evaluation.lars import LARS


def numpy_step(w, g, v, *, lr, momentum, decay, trust):
    """One step of You et al. on a layer, with plain SGD for vectors; returns weights and velocity."""
    if w.ndim > 1:
        length, slope = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        g = trust * length / (slope + decay * length) * (g + decay * w)
    v = momentum * v + g
    return w - lr * v, v


def trained(start, gradients, **arguments):
    """The parameters after a step for each of their gradients, by LARS."""
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = LARS([parameter], **arguments)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 3, 3)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_numpy(shape, decay):
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(shape), rng.standard_normal((4, *shape))
    expected, v = w, np.zeros(shape)
    for g in gradients:
        expected, v = numpy_step(expected, g, v, lr=1.6, momentum=0.9, decay=decay, trust=0.02)
    found = trained(w, gradients, lr=1.6, momentum=0.9, weight_decay=decay, trust=0.02)
    assert np.allclose(found, expected, rtol=1e-12)


def test_a_vector_neither_adapts_nor_decays():
    """Twice the gradient is twice the step, and without a gradient nothing moves; a matrix does the contrary."""
    rng = np.random.default_rng(1)
    vector, matrix = rng.standard_normal(6), rng.standard_normal((2, 3))
    kind = dict(lr=0.1, weight_decay=0.5)
    for start, proportional in ((vector, True), (matrix, False)):
        g = rng.standard_normal(start.shape)
        once, twice = (trained(start, [g * k], lr=0.1) - start for k in (1, 2))
        assert np.allclose(twice, 2 * once) == proportional
        assert np.allclose(twice, once) != proportional
    assert np.array_equal(trained(vector, [np.zeros(6)], **kind), vector)


def test_stacked_layers_are_independent_and_have_their_own_rates():
    rng = np.random.default_rng(2)
    rates = [0.1, 1.6, 25.6]
    for shape in ((3, 4, 5), (3, 4)):  # three matrices, three vectors
        w, gradients = rng.standard_normal(shape), rng.standard_normal((5, *shape))
        together = trained(w, gradients, lr=torch.tensor(rates), weight_decay=0.01, stacked=True)
        for i, rate in enumerate(rates):
            alone = trained(w[i], gradients[:, i], lr=rate, weight_decay=0.01)
            assert np.allclose(together[i], alone, rtol=1e-6)


def test_a_layer_of_zeros_leaves_zero():
    g = np.ones((2, 2))
    assert np.allclose(trained(np.zeros((2, 2)), [g], lr=0.5), -0.5)


def test_parameters_without_gradient_stay_and_a_closure_is_called():
    used, unused = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = LARS([used, unused], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4
    assert (used < 1).all()
    assert (unused == 1).all()


@pytest.mark.parametrize(
    "arguments", [{"lr": -1}, {"lr": 1, "trust": -0.1}, {"lr": torch.ones(2)}, {"lr": 1, "momentum": -1}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=r"must not be negative|stacked"):
        LARS([torch.nn.Parameter(torch.ones(2, 2))], **arguments)
