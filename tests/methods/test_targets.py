"""What a view is predicted from: BYOL's target network, and FastSiam's mean of the other targets."""

import numpy as np
import pytest
import torch

from vissl_zoo.methods.simsiam import mean_of_others
from vissl_zoo.methods.spherical import mean_cosine


def test_byol_starts_as_simsiam_and_then_parts(build, views):
    byol, simsiam = build("byol"), build("simsiam", output_norm=False)
    simsiam.load_state_dict({k: v for k, v in byol.state_dict().items() if not k.startswith("target.")})
    a, b = byol(views()), simsiam(views())
    torch.testing.assert_close(a.loss, b.loss)
    with torch.no_grad():
        for parameter in byol.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    moved = byol.infer(views())
    byol.on_step_start(0.0)
    byol.on_step_end()
    after = byol.infer(views())
    assert not torch.equal(moved.target, after.target)  # the target network followed
    torch.testing.assert_close(moved.mean, after.mean)


def test_byol_target_is_a_moving_average(build):
    method = build("byol", ema_momentum=0.8)
    with torch.no_grad():
        for parameter in [*method.model.parameters(), *method.projector.parameters()]:
            parameter.add_(1.0)
    before = {n: p.clone() for n, p in method.target.named_parameters()}
    online = {**{f"model.{n}": p for n, p in method.model.named_parameters()}}
    online |= {f"projector.{n}": p for n, p in method.projector.named_parameters()}
    method.on_step_start(0.0)
    method.on_step_end()
    for name, parameter in method.target.named_parameters():
        assert not parameter.requires_grad
        torch.testing.assert_close(parameter, 0.8 * before[name] + 0.2 * online[name], msg=name)


def test_mean_of_others_leaves_the_view_itself_out():
    z = torch.nn.functional.normalize(torch.randn(4, 3, 7, dtype=torch.float64), dim=-1)
    found = mean_of_others(z, 6).numpy()
    for view in range(6):
        for b in range(3):
            mean = np.mean([z[j, b].numpy() for j in range(4) if j != view], axis=0)
            np.testing.assert_allclose(found[view, b], mean / np.linalg.norm(mean), atol=1e-12)


@pytest.mark.parametrize("name", ["simsiam", "vi_simsiam"])
def test_fastsiam_predicts_one_mean_per_view(build, views, name):
    each, mean = build(name), build(name, targets="mean")
    four = views(4, 2)
    a, b = each.infer(four), mean.infer(four)
    assert len(a.pairs()[0]) == 4 * 3 + 2 * 4
    assert len(b.pairs()[0]) == 6
    torch.testing.assert_close(b.target, mean_of_others(a.target, 6))
    cosine = (b.mean * b.target).sum(-1).mean()
    torch.testing.assert_close(mean_cosine(b), cosine)
    mean(four).loss.backward()
    assert all(p.grad is not None for p in mean.parameters() if p.requires_grad)


def test_of_two_views_the_mean_of_the_others_is_the_other(build, views):
    a, b = build("vi_simsiam")(views()), build("vi_simsiam", targets="mean")(views())
    torch.testing.assert_close(a.loss, b.loss)


def test_direct_predictor_trains_without_parameters(build, views):
    method = build("vi_simsiam", predictor="direct")
    assert not list(method.predictor.parameters())
    assert method.constant_lr_parameters() == []
    before = method.predictor.weight.clone()
    method(views()).loss.backward()
    assert torch.equal(method.predictor.weight, before)  # it moves once per optimizer step
    method.on_step_end()
    assert not torch.equal(method.predictor.weight, before)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="predictor"):
        build("simsiam", predictor="linear")
    with pytest.raises(ValueError, match="targets"):
        build("simsiam", targets="all")
