"""What keeps the exp map out of κ = 0, and what fitting κ converges to."""

import pytest
import torch

from vissl_zoo.methods.base import Latents


def test_warmup_holds_kappa_and_then_lets_go(build, views):
    method = build("vi_simsiam", variant="beta", kappa_map="exp", kappa_warmup=0.5)
    method.on_step_start(0.0)
    held = method.infer(views()).kappa
    torch.testing.assert_close(held, torch.full_like(held, 15.0))
    gradient = torch.autograd.grad(held.sum(), list(method.model.kappa_head.parameters()))
    assert all(not g.any() for g in gradient)  # held, but present: DDP finds no unused parameter
    method.on_step_start(0.25)
    half = method.infer(views()).kappa
    method.on_step_start(0.5)
    free = method.infer(views()).kappa
    torch.testing.assert_close(half, (15.0 * free).sqrt())  # halfway is the geometric mean
    plain = build("vi_simsiam", variant="beta", kappa_map="exp")
    torch.testing.assert_close(free, plain.infer(views()).kappa)


def test_exp_comes_back_from_its_floor(build):
    """A head driven to its floor while μ·z ≈ 0 must rise again once the views agree: κ = 0 would keep it."""
    torch.manual_seed(0)
    method = build("vi_simsiam", variant="beta", kappa_map="exp")
    head = method.model.kappa_head
    y = torch.randn(32, head.in_features, dtype=torch.float64)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    direction = torch.nn.functional.normalize(torch.randn(1, 32, 16, dtype=torch.float64), dim=-1)

    def train(cosine, steps):
        other = torch.nn.functional.normalize(torch.randn(1, 32, 16, dtype=torch.float64), dim=-1)
        other = other - (other * direction).sum(-1, keepdim=True) * direction
        other = torch.nn.functional.normalize(other, dim=-1)
        target = cosine * direction + (1 - cosine**2) ** 0.5 * other
        both = torch.cat([direction, target])
        for _ in range(steps):
            kappa = head(y)
            latents = Latents(y[None], both, both, kappa[None].expand(2, -1))
            optimizer.zero_grad()
            (-method.alignment(latents)).backward()
            optimizer.step()
        return head(y).detach()

    low = train(-0.5, 150)
    assert (low < 0.2).all()
    high = train(0.9, 400)
    assert high.median() > 15  # d - 1, where E[t] is a half
    assert torch.isfinite(high).all()


@pytest.mark.parametrize("kappa_map", ["softplus", "exp"])
@pytest.mark.parametrize("cosine", [0.3, 0.8])
def test_fitted_kappa_finds_the_cosine(build, kappa_map, cosine):
    """With every pair at the same μ·z = t, the best κ has d/dκ log p = 0; found by bisection with SciPy."""
    from scipy.optimize import brentq
    from scipy.special import digamma

    torch.manual_seed(0)
    method = build("vi_simsiam", kappa_map=kappa_map)
    d, head = 16, method.model.kappa_head
    best = brentq(
        lambda k: (
            -torch.log(torch.tensor(2.0)).item()
            - digamma((d - 1) / 2 + k)
            + digamma(d - 1 + k)
            + torch.log1p(torch.tensor(cosine)).item()
        ),
        1e-6,
        1e4,
    )
    first = torch.zeros(1, 8, d, dtype=torch.float64)
    first[..., 0] = 1
    second = torch.zeros(1, 8, d, dtype=torch.float64)
    second[..., 0], second[..., 1] = cosine, (1 - cosine**2) ** 0.5
    both = torch.cat([first, second])
    y = torch.randn(8, head.in_features, dtype=torch.float64)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.15)
    for _ in range(300):
        kappa = head(y)
        optimizer.zero_grad()
        latents = Latents(y[None], both, both, kappa[None].expand(2, -1))
        (-method.alignment(latents)).backward()
        optimizer.step()
    assert head(y).mean().item() == pytest.approx(best, rel=0.05)
