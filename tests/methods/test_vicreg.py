"""VICReg against loops in NumPy and the paper's Algorithm 1, and against what must not change it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss, relu

from vissl_zoo.methods.vicreg import VICRegLatents

B, D = 6, 16


def latents_of(views, standard, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = (1.3 * torch.randn(views, B, D, generator=generator, dtype=torch.float64)).requires_grad_()
    direction = torch.nn.functional.normalize(z.detach(), dim=-1)
    return VICRegLatents(z, direction, direction[:standard], torch.ones(views, B), expanded=z)


def terms(z):
    """Variance and covariance of one view (B, D), feature by feature (Eqs. 1 to 4)."""
    columns = z.T
    variance = np.mean([max(0.0, 1 - np.sqrt(np.var(c, ddof=1) + 1e-4)) for c in columns])
    centred = [c - np.mean(c) for c in columns]
    covariance = sum(
        (a @ b / (len(z) - 1)) ** 2 for k, a in enumerate(centred) for m, b in enumerate(centred) if k != m
    )
    return variance, covariance / D


@pytest.mark.parametrize(("views", "standard"), [(2, 2), (4, 2), (3, 3)])
def test_the_loss_is_the_published_sum(build, views, standard):
    method, latents = build("vicreg", invariance_weight=3.0, variance_weight=5.0), latents_of(views, standard)
    z = latents.expanded.detach().numpy()
    losses = []
    for i in range(views):
        for j in range(standard):
            if i != j:
                (v, c), (other_v, other_c) = terms(z[i]), terms(z[j])
                distance = np.mean([np.sum((a - b) ** 2) for a, b in zip(z[i], z[j], strict=True)]) / D
                losses.append(3.0 * distance + 5.0 * (v + other_v) + 1.0 * (c + other_c))
    objective = method.alignment(latents) + method.uniformity(latents)
    assert -objective.item() == pytest.approx(np.mean(losses), rel=1e-10)


def test_of_two_views_it_is_algorithm_1(build):
    """The paper's pseudocode in torch, with its gradient."""
    method, latents = build("vicreg"), latents_of(2, 2)
    z_a, z_b = latents.expanded
    spread = covariances = 0.0
    for z in (z_a, z_b):
        spread = spread + relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
        covariance = torch.cov(z.T)
        covariances = covariances + (covariance - covariance.diag().diag()).square().sum() / D
    expected = 25 * mse_loss(z_a, z_b) + 25 * spread + covariances
    loss = -(method.alignment(latents) + method.uniformity(latents))
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(x, latents.expanded, retain_graph=True)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


def test_it_feels_no_common_shift_but_a_collapse(build):
    method, latents = build("vicreg"), latents_of(2, 2)
    before = method.alignment(latents) + method.uniformity(latents)
    latents.expanded = latents.expanded + 3.0
    torch.testing.assert_close(method.alignment(latents) + method.uniformity(latents), before)
    latents.expanded = torch.ones_like(latents.expanded)  # all alike: only the hinge is left, for both views
    assert method.alignment(latents).item() == 0
    assert method.uniformity(latents).item() == pytest.approx(-25 * 2 * 0.99)


def test_negative_weights_are_refused(build):
    for name in ("invariance_weight", "variance_weight", "covariance_weight"):
        with pytest.raises(ValueError, match=f"{name} must not be negative"):
            build("vicreg", **{name: -1.0})
