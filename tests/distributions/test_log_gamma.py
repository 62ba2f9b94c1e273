import pytest
import torch

from vissl_zoo.distributions.log_gamma import digamma_difference, log_gamma_ratio

DIMS = (2, 3, 5, 16, 128, 512, 2048, 8192)
KAPPAS = (0.0, 1e-3, 0.3, 1.0, 7.5, 30.0, 850.0, 1e4, 1e6)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 2e-14), (torch.float32, 6e-7)])
@pytest.mark.parametrize("d", DIMS)
def test_ratio_and_three_derivatives_match_mpmath(exact, d, dtype, bound):
    mp, b = exact.mp, (d - 1) / 2
    for kappa in KAPPAS:
        a = torch.tensor(b + kappa, dtype=dtype, requires_grad=True)
        exact_a = mp.mpf(a.item())
        references = [mp.loggamma(exact_a + b) - mp.loggamma(exact_a)]
        references += [mp.psi(n, exact_a + b) - mp.psi(n, exact_a) for n in range(3)]
        for computed, reference in zip(
            exact.derivatives(log_gamma_ratio(a, b), a, 3), references, strict=True
        ):
            assert exact.error(computed, reference) < bound


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-14), (torch.float32, 6e-7)])
@pytest.mark.parametrize("d", DIMS)
def test_digamma_difference_is_exact_relative_to_itself(exact, d, dtype, bound):
    b = (d - 1) / 2
    for kappa in KAPPAS:
        a = torch.tensor(b + kappa, dtype=dtype)
        exact_a = exact.mp.mpf(a.item())
        reference = exact.mp.psi(0, exact_a + b) - exact.mp.psi(0, exact_a)
        # Small differences (1e-6 at d = 2, κ = 1e6) must keep their digits: scale to 1 before comparing.
        assert exact.error(digamma_difference(a, b) / float(reference), exact.mp.mpf(1)) < bound


def test_shapes_and_gradcheck():
    a = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    a = (a + 0.5).detach().requires_grad_()
    assert log_gamma_ratio(a, 1.5).shape == digamma_difference(a, 1.5).shape == (2, 3)
    assert torch.autograd.gradgradcheck(lambda x: log_gamma_ratio(x, 1.5), (a,))
    (slope,) = torch.autograd.grad(log_gamma_ratio(a, 1.5).sum(), a)
    torch.testing.assert_close(slope, digamma_difference(a, 1.5).detach(), rtol=1e-14, atol=0)


def test_a_negative_argument_is_nan_and_not_a_wrong_number():
    assert log_gamma_ratio(torch.tensor([-0.2]), 0.5).isnan().all()
