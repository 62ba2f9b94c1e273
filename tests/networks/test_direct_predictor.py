"""DirectPred against NumPy's eigenvectors, and Claim 4.4: under it the eigenvalues flatten."""

import numpy as np
import torch

from vissl_zoo.networks.direct_predictor import DirectPredictor, direct_weight


def known_moment(dim=6, seed=0):
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    values = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.0])[:dim]
    return values, vectors, (vectors * values) @ vectors.T


def test_weight_is_the_square_root_of_the_moment():
    """(U Λ^½ Uᵀ) z of Eq. 23, whose square is the moment itself, up to √λ_max."""
    values, vectors, moment = known_moment()
    weight = direct_weight(torch.from_numpy(moment)).numpy()
    np.testing.assert_allclose(weight, (vectors * np.sqrt(values)) @ vectors.T / 2, atol=1e-7)
    np.testing.assert_allclose(4 * weight @ weight, moment, atol=1e-7)


def test_epsilon_keeps_a_dead_direction_alive():
    values, vectors, moment = known_moment()
    weight = direct_weight(torch.from_numpy(moment), 0.1).numpy()
    dead = vectors[:, values == 0][:, 0]
    np.testing.assert_allclose(weight @ dead, 0.1 * dead, atol=1e-7)


def test_predictor_follows_the_moving_average_once_per_update():
    predictor = DirectPredictor(5, momentum=0.75, epsilon=0.0).double()
    batches = [torch.randn(40, 5, dtype=torch.float64) * torch.arange(1, 6) for _ in range(3)]
    unit = lambda z: torch.nn.functional.normalize(z, dim=1)  # noqa: E731
    predictor(batches[0])
    predictor(batches[1])  # two batches of one step
    predictor.update()
    both = unit(torch.cat(batches[:2]))
    first = both.T @ both / len(both)
    torch.testing.assert_close(predictor.moment, first)
    predictor(batches[2])
    predictor.update()
    second = unit(batches[2]).T @ unit(batches[2]) / 40
    torch.testing.assert_close(predictor.moment, 0.75 * first + 0.25 * second)
    torch.testing.assert_close(predictor.weight, direct_weight(predictor.moment))
    z = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(predictor.eval()(z), z @ direct_weight(predictor.moment))
    moment = predictor.moment.clone()
    predictor.update()  # evaluation is not remembered
    assert torch.equal(predictor.moment, moment)


def test_under_autocast_the_moment_is_as_exact():
    predictors = [DirectPredictor(5) for _ in range(2)]
    for seed in range(4):
        z = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed))
        predictors[0](z)
        with torch.autocast("cpu", torch.bfloat16):
            predictors[1](z)
        for predictor in predictors:
            predictor.update()
    assert torch.equal(predictors[0].moment, predictors[1].moment)
    assert torch.equal(predictors[0].weight, predictors[1].weight)


def spread(values):
    """Effective rank: exp of the entropy of the eigenvalues' shares."""
    share = values.clamp_min(1e-12) / values.clamp_min(1e-12).sum()
    return torch.special.entr(share).sum().exp().item()


def test_eigenvalues_flatten():
    """A linear encoder of strongly unequal features, trained by SimSiam's loss with DirectPred (Claim 4.4)."""
    torch.manual_seed(0)
    dim = 8
    encoder = torch.nn.Linear(dim, dim, bias=False).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.diag(torch.linspace(1.0, 0.2, dim, dtype=torch.float64)))
    predictor = DirectPredictor(dim, momentum=0.9, epsilon=0.1).double()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.3, weight_decay=1e-3)
    ranks = []
    for step in range(400):
        x = torch.randn(256, dim, dtype=torch.float64)
        a, b = (encoder(x + 0.3 * torch.randn_like(x)) for _ in range(2))
        loss = 0.0
        for one, other in ((a, b), (b, a)):
            loss = loss - torch.nn.functional.cosine_similarity(predictor(one), other.detach()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        predictor.update()
        if step in (0, 399):
            ranks.append(spread(torch.linalg.eigvalsh(predictor.moment)))
    assert ranks[1] > ranks[0] + 1
    assert ranks[1] > 0.9 * dim
