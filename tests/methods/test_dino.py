"""DINO's moving parts: the centre and the EMA teacher, each once per optimizer step."""

import copy
import math

import pytest
import torch


def test_centre_moves_once_per_step_by_the_mean_of_all_batches(build, views):
    method = build("dino", center_momentum=0.9)
    head = method.model.prototype_head
    head.center.fill_(0.5)
    seen = []
    original = method._remember
    method._remember = lambda logits: (seen.append(logits.detach().clone()), original(logits))
    method(views(seed=1))
    method(views(seed=2))  # a second batch of the same step
    assert (head.center == 0.5).all()
    method.on_step_end()
    mean = torch.cat([logits.flatten(0, 1) for logits in seen]).mean(0)
    torch.testing.assert_close(head.center, 0.9 * torch.full_like(mean, 0.5) + 0.1 * mean)
    moved = head.center.clone()
    method.on_step_end()
    torch.testing.assert_close(head.center, moved, rtol=0, atol=0)  # nothing new was seen


def test_shared_teacher_is_the_student(build, views):
    method = build("dino")
    latents = method.infer(views())
    logits = latents.mean * 0.1  # log-softmax: logits up to a constant, which the teacher's softmax ignores
    expected = method.model.prototype_head.teacher_probabilities(logits)
    torch.testing.assert_close(latents.target, expected)
    assert method.teacher is None


def test_ema_teacher_follows_its_schedule(build, views):
    method = build("dino", teacher="ema", ema_momentum=0.9)
    student = dict(method.model.named_parameters())
    with torch.no_grad():
        for parameter in student.values():
            parameter.add_(1.0)
    for progress, momentum in ((0.0, 0.9), (0.5, 1 - 0.1 * (1 + math.cos(math.pi / 2)) / 2), (1.0, 1.0)):
        before = {n: p.clone() for n, p in method.teacher.named_parameters()}
        method.on_step_start(progress)
        method.on_step_end()
        for name, parameter in method.teacher.named_parameters():
            expected = momentum * before[name] + (1 - momentum) * student[name]
            torch.testing.assert_close(parameter, expected, msg=name)


def test_ema_teacher_gets_no_gradient_and_is_exported_with_the_kappa_head(build, views):
    method = build("dino", teacher="ema")
    method(views()).loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.5)
    exported = method.exported_model().state_dict()
    for name, tensor in method.teacher.state_dict().items():
        assert torch.equal(exported[name], tensor), name
    for name, tensor in method.model.kappa_head.state_dict().items():
        assert torch.equal(exported[f"kappa_head.{name}"], tensor), name


def test_constant_teacher_entropy_marks_collapse(build, views):
    method = build("dino")
    weights = copy.deepcopy(method.state_dict())
    method.model.prototype_head.teacher_temperature = 1e6
    assert method.signals(method.infer(views()))["teacher_entropy"].item() == pytest.approx(1.0, abs=1e-6)
    method.load_state_dict(weights)
    method.model.prototype_head.teacher_temperature = 1e-4
    assert method.signals(method.infer(views()))["teacher_entropy"].item() < 0.2
