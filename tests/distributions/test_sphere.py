import math

import pytest
import torch
from torch.nn.functional import normalize

from vissl_zoo.distributions import unit_sphere
from vissl_zoo.distributions.sphere import checked_dim, log_area, one_plus_cosine

ALL_DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("d", [2, 3, 64, 2048])
def test_vectors_normalised_in_any_dtype_are_on_the_sphere(d, dtype):
    x = normalize(torch.randn(256, d).to(dtype), dim=-1)
    assert unit_sphere.check(x).shape == (256,)
    assert unit_sphere.check(x).all()
    assert unit_sphere.check(x.float()).all()


@pytest.mark.parametrize("scale", [0.0, 0.98, 1.02, 2.0, math.nan, math.inf])
def test_other_vectors_are_not(scale):
    x = normalize(torch.randn(8, 16), dim=-1) * scale
    assert not unit_sphere.check(x).any()


@pytest.mark.parametrize("d", [2, 3, 16, 2048, 8192])
def test_log_area(exact, d):
    assert log_area(d) == pytest.approx(float(exact.log_area(d)), rel=1e-13, abs=1e-12)


def test_checked_dim():
    assert checked_dim(torch.zeros(5).shape[0]) == 5
    with pytest.raises(ValueError, match="at least 2"):
        checked_dim(1)
    with pytest.raises(TypeError):
        checked_dim(2.5)


@pytest.mark.parametrize("t", [-1 + 1e-9, -0.95, -0.9, -0.5, 0.0, 0.5, 0.9, 1 - 1e-9, 1.0])
@pytest.mark.parametrize("d", [2, 7, 300])
def test_one_plus_cosine_and_its_gradient(exact, d, t):
    mu, z = exact.pair(d, t)
    value = one_plus_cosine(mu.requires_grad_(), z)
    reference = float(1 + exact.cosine(mu, z, normalised=True))
    assert value.item() == pytest.approx(reference, rel=1e-6)
    (gradient,) = torch.autograd.grad(value, mu)
    assert torch.equal(gradient, z)


def test_second_derivative_of_its_logarithm():
    mu, z = (normalize(torch.randn(4, 5, dtype=torch.float64), dim=-1) for _ in range(2))
    mu.requires_grad_()
    (gradient,) = torch.autograd.grad(one_plus_cosine(mu, z).log().sum(), mu, create_graph=True)
    (found,) = torch.autograd.grad(gradient.sum(), mu)
    t = (mu * z).sum(-1, keepdim=True).detach()
    torch.testing.assert_close(found, -z * z.sum(-1, keepdim=True) / (1 + t).square())


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("d", [2, 512])
def test_the_exact_antipode_is_finite(d, dtype):
    mu = normalize(torch.randn(6, d), dim=-1).to(dtype).requires_grad_()
    z = (-mu).detach().requires_grad_()
    value = one_plus_cosine(mu, z, least=1e-12)
    assert (value == 1e-12).all()
    value.sum().backward()
    assert torch.equal(mu.grad, z)


@pytest.mark.parametrize("t", [-1 + 1e-5, 0.3])
def test_float32_vectors_keep_their_digits_next_to_the_antipode(exact, t, without_float64):
    mu, z = exact.pair(64, t, torch.float32)
    reference = float(1 + exact.cosine(mu, z, normalised=True))
    assert one_plus_cosine(mu, z).item() == pytest.approx(reference, rel=1e-5)
    assert (1 + (mu * z).sum()).item() != pytest.approx(reference, rel=1e-4 if t < 0 else 0)


def test_broadcasting_and_mismatched_shapes():
    mu, z = normalize(torch.randn(3, 1, 4, 8), dim=-1), normalize(torch.randn(2, 4, 8), dim=-1)
    value = one_plus_cosine(mu, z)
    assert value.shape == (3, 2, 4)
    torch.testing.assert_close(value[2, 1], one_plus_cosine(mu[2, 0], z[1]))
    for left, right in [((4, 8), (4, 7)), ((4, 8), (4, 1)), ((4, 8), (3, 8)), ((), (8,))]:
        with pytest.raises(ValueError, match="do not pair"):
            one_plus_cosine(torch.ones(left), torch.ones(right))
