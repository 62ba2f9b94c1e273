import math

import pytest
import torch
from torch.nn.functional import normalize

from vissl_zoo.distributions import log1p_cosine, unit_sphere
from vissl_zoo.distributions.sphere import (
    checked_dim,
    log_area,
    log_half_one_plus_cosine,
    one_minus_cosine,
)

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
def test_log1p_cosine_and_its_gradient(exact, d, t):
    mu, z = exact.pair(d, t)
    mu.requires_grad_()
    value = log1p_cosine(mu, z)
    (gradient,) = torch.autograd.grad(value, mu)
    one_plus = 1 + exact.cosine(mu, z, normalised=True)
    assert exact.error(value.detach(), exact.mp.log(one_plus)) < 1e-6
    torch.testing.assert_close(gradient, z / float(one_plus), rtol=1e-6, atol=0)


def test_second_derivative_is_that_of_log1p():
    mu, z = (normalize(torch.randn(4, 5, dtype=torch.float64), dim=-1) for _ in range(2))
    mu.requires_grad_()
    assert torch.autograd.gradgradcheck(log1p_cosine, (mu, z.requires_grad_()))


@pytest.mark.parametrize("form", ["float64", "float32"])
@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("d", [2, 512])
def test_the_exact_antipode_is_finite(request, d, dtype, form):
    if form == "float32":
        request.getfixturevalue("float32_form")
    mu = normalize(torch.randn(6, d), dim=-1).to(dtype).requires_grad_()
    z = (-mu).detach().requires_grad_()
    value = log1p_cosine(mu, z)
    (850 * value.sum()).backward()
    torch.testing.assert_close(value.double(), torch.full((6,), math.log(1e-12)).double(), rtol=1e-6, atol=0)
    assert mu.grad.isfinite().all()
    assert z.grad.isfinite().all()
    assert (mu.grad * z.sign()).max() > 1e4  # it still says which way is up, and loudly


def test_close_to_the_antipode_float32_keeps_its_digits(exact, float32_form):
    mu, z = exact.pair(64, -1 + 1e-5, torch.float32)
    reference = exact.mp.log(1 + exact.cosine(mu, z, normalised=True))
    assert exact.error(log1p_cosine(mu, z), reference) < 1e-5
    naive = torch.log1p((mu * z).sum())
    assert exact.error(naive, reference) > 1e-4


def test_close_to_the_mode_float32_keeps_its_digits(exact, float32_form):
    mu, z = exact.pair(2048, 1 - 1e-5, torch.float32)
    reference = float(exact.mp.log((1 + exact.cosine(mu, z, normalised=True)) / 2))
    assert log_half_one_plus_cosine(mu, z).item() == pytest.approx(reference, rel=1e-5)
    # The plain dot product is off by thousands of times more: 6e-8 against a log ratio of 5e-6.
    assert math.log((1 + float((mu * z).sum())) / 2) != pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_is_computed_in_float64_from_the_given_numbers(exact, dtype):
    mu, z = exact.pair(200, 0.7, dtype)
    value = log1p_cosine(mu, z)
    assert value.dtype == torch.float64
    assert exact.error(value, exact.mp.log(1 + exact.cosine(mu, z))) < 1e-14


def test_broadcasting_and_mismatched_shapes():
    mu, z = normalize(torch.randn(3, 1, 4, 8), dim=-1), normalize(torch.randn(2, 4, 8), dim=-1)
    value = log1p_cosine(mu, z)
    assert value.shape == (3, 2, 4)
    torch.testing.assert_close(value[2, 1], log1p_cosine(mu[2, 0], z[1]))
    for left, right in [((4, 8), (4, 7)), ((4, 8), (4, 1)), ((4, 8), (3, 8)), ((), (8,))]:
        with pytest.raises(ValueError, match="do not pair"):
            log1p_cosine(torch.ones(left), torch.ones(right))


@pytest.mark.parametrize("form, bound", [("float64", 1e-6), ("float32", 1e-5)])
@pytest.mark.parametrize("t", [-1.0, -0.4, 0.6, 1 - 1e-8])
def test_one_minus_cosine_is_blind_to_the_norms(request, exact, t, form, bound):
    if form == "float32":
        request.getfixturevalue("float32_form")
    mu, z = exact.pair(300, t, torch.float32)
    reference = float(1 - exact.cosine(mu, z, normalised=True))
    assert one_minus_cosine(mu.requires_grad_(), z).item() == pytest.approx(reference, rel=bound)
    (gradient,) = torch.autograd.grad(one_minus_cosine(mu, z), mu)
    assert torch.equal(gradient, -z)
    assert one_minus_cosine(mu, mu) == 0


def test_one_minus_cosine_broadcasts():
    mu, z = normalize(torch.randn(3, 1, 8), dim=-1), normalize(torch.randn(4, 8), dim=-1)
    torch.testing.assert_close(one_minus_cosine(mu, z), 1 - (mu * z).sum(-1).double(), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="do not pair"):
        one_minus_cosine(mu, z[:, :7])
