"""Each loss against loops in NumPy and SciPy written from the paper's formulas, and against an invariance."""

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from torch.nn.functional import normalize

from vissl_zoo.methods.base import Latents
from vissl_zoo.methods.dino import DINOLatents

V, S, B, D = 4, 2, 5, 16


@pytest.fixture
def latents():
    generator = torch.Generator().manual_seed(3)
    rand = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return Latents(
        embedding=rand(V, B, 9),
        mean=normalize(rand(V, B, D), dim=-1).requires_grad_(),
        target=normalize(rand(S, B, D), dim=-1),
        kappa=(rand(V, B).exp() * 20).requires_grad_(),
    )


def log_power_spherical(mean, z, kappa):
    """Eq. 32 with the beta-function normaliser, one point at a time."""
    a, b = (D - 1) / 2 + kappa, (D - 1) / 2
    log_c = -((a + b) * np.log(2) + gammaln(a) - gammaln(a + b) + b * np.log(np.pi))
    return log_c + kappa * np.log1p(float(np.dot(mean, z)))


def over_pairs(latents, term):
    """Mean over i ≠ j and images of term(i, j, image)."""
    values = [term(i, j, b) for i in range(V) for j in range(S) if i != j for b in range(B)]
    assert len(values) == (V * S - S) * B
    return np.mean(values)


def arrays(latents):
    return [x.detach().numpy() for x in (latents.mean, latents.target, latents.kappa)]


def test_simsiam_is_the_mean_cosine(build, latents):
    mean, target, _ = arrays(latents)
    expected = over_pairs(latents, lambda i, j, b: mean[i, b] @ target[j, b])
    assert build("simsiam").alignment(latents).item() == pytest.approx(expected, abs=1e-12)


def test_paper_is_the_mean_log_density(build, latents):
    mean, target, kappa = arrays(latents)
    method = build("vi_simsiam", variant="paper")
    expected = over_pairs(latents, lambda i, j, b: log_power_spherical(mean[i, b], target[j, b], kappa[i, b]))
    assert method.alignment(latents).item() == pytest.approx(expected, abs=1e-9)
    assert method.kappa_fit(latents) is None


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_beta_weighs_each_term(build, latents, beta):
    mean, target, kappa = arrays(latents)

    def term(i, j, b):
        weight = (kappa[i, b] / (D - 1)) ** -beta / (D - 1)
        return weight * log_power_spherical(mean[i, b], target[j, b], kappa[i, b])

    method = build("vi_simsiam", variant="beta", beta=beta)
    assert method.alignment(latents).item() == pytest.approx(over_pairs(latents, term), abs=1e-10)


def test_detached_is_the_cosine_and_a_kappa_term(build, latents):
    mean, target, kappa = arrays(latents)

    def term(i, j, b):
        density = log_power_spherical(mean[i, b], target[j, b], kappa[i, b])
        return mean[i, b] @ target[j, b] + 7.0 / (D - 1) * density

    method = build("vi_simsiam", variant="detached", kappa_weight=7.0)
    assert method.alignment(latents).item() == pytest.approx(over_pairs(latents, term), abs=1e-10)


def test_dino_is_minus_the_cross_entropy(build):
    method = build("dino")
    head = method.model.prototype_head
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(V, B, 24, generator=generator, dtype=torch.float64)
    head.center.copy_(torch.randn(24, generator=generator, dtype=torch.float64) / 9)
    latents = DINOLatents(
        embedding=logits,
        mean=(logits / 0.1).log_softmax(-1),
        target=head.teacher_probabilities(logits[:S]),
        kappa=torch.ones(S, B),
        z=logits[:S],
    )

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    g, c = logits.numpy(), head.center.numpy()
    expected = over_pairs(
        latents, lambda i, j, b: softmax((g[j, b] - c) / 0.04) @ np.log(softmax(g[i, b] / 0.1))
    )
    assert method.alignment(latents).item() == pytest.approx(expected, rel=1e-9)
    assert expected < 0


@pytest.mark.parametrize("name", ["simsiam", "vi_simsiam", "dino"])
def test_fitted_kappa_is_the_density_over_d(build, latents, name):
    if name == "vi_simsiam":
        pytest.skip("its kappa is part of the objective")
    method = build(name, kappa_weight=5.0)
    method.dim = D
    mean, target, kappa = arrays(latents)
    if name == "dino":
        z = latents.target.detach()
        latents = DINOLatents(latents.embedding, None, None, latents.kappa[:S], z=z)
        pairs = [(0, 1), (1, 0)]
        mean, target = z.numpy(), z.numpy()
    else:
        pairs = [(i, j) for i in range(V) for j in range(S) if i != j]
    values = [log_power_spherical(mean[i, b], target[j, b], kappa[i, b]) for i, j in pairs for b in range(B)]
    assert method.kappa_fit(latents).item() == pytest.approx(-5.0 / (D - 1) * np.mean(values), abs=1e-10)


@pytest.mark.parametrize("objective", ["paper", "beta", "detached"])
def test_rotating_the_sphere_changes_nothing(build, latents, objective):
    method = build("vi_simsiam", variant=objective)
    rotation = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    turned = Latents(latents.embedding, latents.mean @ rotation, latents.target @ rotation, latents.kappa)
    torch.testing.assert_close(method.alignment(turned), method.alignment(latents), rtol=1e-12, atol=1e-12)


def test_shifting_logits_and_centre_together_changes_no_teacher(build):
    head = build("dino").model.prototype_head
    logits, shift = torch.randn(3, 24, dtype=torch.float64), torch.randn(24, dtype=torch.float64)
    before = head.teacher_probabilities(logits)
    head.center.add_(shift)
    torch.testing.assert_close(head.teacher_probabilities(logits + shift), before)
    torch.testing.assert_close(head.teacher_probabilities(logits + shift + 5.0), before)


def mean_gradient(method, latents):
    latents.mean.grad = None
    method.alignment(latents).backward()
    return latents.mean.grad.clone()


def test_gradients_of_the_mean_direction(build, latents):
    """Per term: SimSiam z; paper κ z / (1 + t); β = 1: SimSiam's over 1 + t; detached: SimSiam's own."""
    mean, target, kappa = (torch.from_numpy(x) for x in arrays(latents))
    terms = (V * S - S) * B
    plain, paper, beta = (torch.zeros(V, B, D, dtype=torch.float64) for _ in range(3))
    for i in range(V):
        for j in range(S):
            if i != j:
                t = (mean[i] * target[j]).sum(-1, keepdim=True)
                plain[i] += target[j] / terms
                paper[i] += kappa[i, :, None] * target[j] / (1 + t) / terms
                beta[i] += target[j] / (1 + t) / terms
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # noqa: E731
    close(mean_gradient(build("simsiam"), latents), plain)
    close(mean_gradient(build("vi_simsiam", variant="detached"), latents), plain)
    close(mean_gradient(build("vi_simsiam", variant="paper"), latents), paper)
    close(mean_gradient(build("vi_simsiam", variant="beta", beta=1.0), latents), beta)


def test_best_kappa_solves_its_own_equation(build, latents):
    """At the optimum of log C(κ) + κ log1p(t) over κ, for one pair, the derivative vanishes where t = E[t]-like."""
    method = build("vi_simsiam", variant="paper")
    method.alignment(latents).backward()
    mean, target, kappa = arrays(latents)
    step = 1e-5
    numeric = np.zeros_like(kappa)
    for i in range(V):
        for b in range(B):
            values = []
            for sign in (1, -1):
                k = kappa[i, b] + sign * step
                values.append(
                    sum(log_power_spherical(mean[i, b], target[j, b], k) for j in range(S) if j != i)
                )
            numeric[i, b] = (values[0] - values[1]) / (2 * step) / ((V * S - S) * B)
    np.testing.assert_allclose(latents.kappa.grad.numpy(), numeric, atol=1e-8)
