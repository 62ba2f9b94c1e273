"""The κ head: positive and finite everywhere, and the paper's network."""

import io
import math

import pytest
import torch

from vissl_zoo.networks.kappa_head import EXP_BOUND, KAPPA_FLOOR, KAPPA_MAPS, KappaHead


def constant_head(kappa_map, u, **kwargs):
    """A head whose pre-activation is u for every image."""
    head = KappaHead(4, kappa_map=kappa_map, **kwargs).eval()
    torch.nn.init.zeros_(head.mlp.fc2.weight)
    torch.nn.init.constant_(head.mlp.fc2.bias, u)
    return head


def test_is_the_network_of_appendix_b():
    head = KappaHead(512)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes == {
        "mlp.fc1.weight": (512, 512),
        "mlp.norm.weight": (512,),
        "mlp.norm.bias": (512,),
        "mlp.fc2.weight": (1, 512),
        "mlp.fc2.bias": (1,),
    }
    assert (head.latent_dim, head.kappa_map) == (2048, "softplus")


@pytest.mark.parametrize("kappa_map", KAPPA_MAPS)
def test_shape_and_dtype(kappa_map):
    head = KappaHead(8, 16, kappa_map, hidden=5)
    assert head(torch.randn(6, 8)).shape == (6,)
    assert head(torch.randn(6, 8)).dtype == torch.float32
    assert head.to(torch.bfloat16)(torch.randn(6, 8, dtype=torch.bfloat16)).dtype == torch.float32
    assert head.double()(torch.randn(6, 8).double()).dtype == torch.float64


@pytest.mark.parametrize("kappa_map", KAPPA_MAPS)
@pytest.mark.parametrize("u", [-1e30, -1e4, -104.0, 0.0, 1.0, 1e4, 1e30])
def test_positive_and_finite_everywhere(kappa_map, u):
    kappa = constant_head(kappa_map, u)(torch.randn(3, 4))
    assert torch.isfinite(kappa).all()
    assert (kappa > 0).all()
    assert torch.isfinite(kappa.log()).all()


@pytest.mark.parametrize("u", [-10.0, -1.0, 0.0, 0.5, 30.0, 850.0])
def test_softplus_map(u):
    kappa = constant_head("softplus", u)(torch.zeros(1, 4))
    assert kappa.item() == pytest.approx(u + math.log1p(math.exp(-u)), rel=1e-5)
    assert constant_head("softplus", -200.0)(torch.zeros(1, 4)).item() == pytest.approx(KAPPA_FLOOR)


def test_exp_map_starts_at_half_and_is_bounded():
    dim = 33
    assert constant_head("exp", 0.0, latent_dim=dim)(torch.zeros(1, 4)).item() == pytest.approx(dim - 1)
    # 7·tanh(u/7) = u - u³/147 + …: e^u near the origin
    assert constant_head("exp", 0.1, latent_dim=dim)(torch.zeros(1, 4)).item() == pytest.approx(
        (dim - 1) * math.exp(0.1), rel=1e-5
    )
    for sign in (-1, 1):
        bound = (dim - 1) * math.exp(sign * EXP_BOUND)
        far = constant_head("exp", sign * 1e6, latent_dim=dim)(torch.zeros(1, 4)).item()
        assert far == pytest.approx(bound, rel=1e-5)


def test_fresh_exp_head_is_near_half():
    torch.manual_seed(0)
    head = KappaHead(512, 256, "exp")
    u = (head(torch.randn(256, 512)) / 255).log()
    assert u.abs().max() < 0.5


def test_exp_gradient_survives_at_both_ends():
    for u in (-15.0, 15.0):
        head = constant_head("exp", u)
        head(torch.zeros(1, 4)).log().sum().backward()
        assert head.mlp.fc2.bias.grad.item() > 0.01


@pytest.mark.parametrize("dim", [2, 128, 2048])
def test_uncertainty_is_one_minus_mean_cosine(dim):
    """1 - E[t] for t = 2B - 1, B ~ Beta((d-1)/2 + κ, (d-1)/2), by torch's Beta."""
    kappa = torch.tensor([1e-6, 0.5, 30.0, 850.0, 1e6], dtype=torch.float64)
    b = (dim - 1) / 2
    mean_cosine = 2 * torch.distributions.Beta(b + kappa, torch.tensor(b).double()).mean - 1
    torch.testing.assert_close(KappaHead(4, dim).uncertainty(kappa), 1 - mean_cosine)


@pytest.mark.parametrize("kappa_map", KAPPA_MAPS)
def test_runtimes_agree(kappa_map):
    torch.manual_seed(0)
    head, y = KappaHead(8, 16, kappa_map).eval(), torch.randn(4, 8)
    expected = head(y)
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(head), scripted)
    scripted.seek(0)
    assert torch.equal(torch.jit.load(scripted)(y), expected)
    assert torch.equal(torch.compile(head, fullgraph=True, backend="eager")(y), expected)
    assert torch.equal(torch.export.export(head, (y,)).module()(y), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(y), expected)
    assert KappaHead(8, device="meta")(y.to("meta")).shape == (4,)


@pytest.mark.parametrize(
    "kwargs, culprit",
    [
        ({"kappa_map": "relu"}, "relu"),
        ({"latent_dim": 1}, "latent_dim"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_bad_arguments(kwargs, culprit):
    with pytest.raises(ValueError, match=culprit):
        KappaHead(4, **kwargs)
