"""DINO's head: cosines with prototypes, and the entropy of the teacher's categorical."""

import pytest
import torch

from vissl_zoo.networks.prototype_head import PrototypeHead


@pytest.fixture
def head():
    torch.manual_seed(0)
    return PrototypeHead(6, bottleneck_dim=5, prototypes=16, hidden=8).eval()


def test_bottleneck_is_on_the_sphere(head):
    z = head.bottleneck(torch.randn(7, 6))
    assert z.shape == (7, 5)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(7))


def test_logits_are_cosines(head):
    y = torch.randn(7, 6)
    z = head.bottleneck(y)
    expected = torch.nn.functional.cosine_similarity(z[:, None], head.weight[None], dim=-1)
    torch.testing.assert_close(head(y), expected)
    torch.testing.assert_close(head.logits(z), head(y))


def test_length_of_a_prototype_does_not_matter(head):
    y = torch.randn(7, 6)
    before = head(y)
    with torch.no_grad():
        head.weight.mul_(torch.rand(16, 1) * 10 + 0.1)
    torch.testing.assert_close(head(y), before)


def test_teacher_probabilities(head):
    head.center.normal_(std=0.1)
    g = head(torch.randn(7, 6)).double()
    weight = ((g - head.center.double()) / 0.04).exp()
    torch.testing.assert_close(head.teacher_probabilities(g), weight / weight.sum(-1, keepdim=True))


def test_uncertainty_is_normalised_entropy(head):
    y = torch.randn(7, 6)
    categorical = torch.distributions.Categorical(probs=head.teacher_probabilities(head(y)))
    uniform = torch.distributions.Categorical(probs=torch.ones(16))
    torch.testing.assert_close(head.uncertainty(y), categorical.entropy() / uniform.entropy())


def test_uncertainty_ends(head):
    y = torch.randn(3, 6)
    head.center.copy_(head(y[:1])[0])  # the first image's logits are the centre: a flat categorical
    assert head.uncertainty(y)[0].item() == pytest.approx(1, abs=1e-6)
    head.teacher_temperature = 1e-6
    sharp = head.uncertainty(y)
    assert sharp[1:].max() < 1e-3
    assert sharp.min() >= 0
    assert sharp.max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_autocast(head, dtype):
    y = torch.randn(4, 6)
    head = head.to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    outside = head(y), head.uncertainty(y), head.logits(head.bottleneck(y).to(dtype))
    assert [t.dtype for t in outside] == [wide] * 3
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(y), head.uncertainty(y), head.logits(head.bottleneck(y).to(dtype))
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)


def test_runtimes_agree(head):
    y = torch.randn(4, 6)
    assert torch.equal(torch.jit.script(head)(y), head(y))
    assert torch.equal(torch.compile(head, fullgraph=True, backend="eager")(y), head(y))
    assert torch.equal(torch.export.export(head, (y,)).module()(y), head(y))
    assert PrototypeHead(6, device="meta")(y.to("meta")).shape == (4, 2048)


def test_plain_keys(head):
    """No parametrization: a checkpoint's keys are those of the attributes."""
    own = {k for k in head.state_dict() if not k.startswith("mlp.")}
    assert own == {"weight", "center"}
    assert "center" not in dict(head.named_parameters())


@pytest.mark.parametrize("kwargs", [{"prototypes": 1}, {"teacher_temperature": 0}, {"bottleneck_dim": 0}])
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        PrototypeHead(6, **kwargs)
