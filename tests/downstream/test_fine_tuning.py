"""Fine-tuning an export is fine-tuning timm's own network: the same numbers, and nothing left over."""

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch.nn.functional import cross_entropy

import vissl_zoo
from vissl_zoo.hub import export_model

BACKBONES = {"resnet": "resnet18", "vit": "vit_small_patch16_224"}


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """The export of a whole ResNet-18."""
    torch.manual_seed(3)
    model = vissl_zoo.create_model("vi_simsiam_resnet18", latent_dim=32)
    return export_model(model, tmp_path_factory.mktemp("full") / "export")


def plain_twin(model, kind, small_args, **kwargs):
    """timm's own network with the tensors of `model`."""
    twin = timm.create_model(BACKBONES[kind], **small_args, **kwargs)
    twin.load_state_dict(model.state_dict())  # strict: not a key more or less
    return twin


def losses_of(model, steps=3):
    """The loss before each of some SGD steps on fixed images."""
    generator = torch.Generator().manual_seed(5)
    images, labels = torch.randn(4, 3, 64, 64, generator=generator), torch.tensor([0, 3, 9, 3])
    optimizer = create_optimizer_v2(model.train(), "sgd", lr=0.05, weight_decay=1e-4, momentum=0.9)
    losses = []
    for _ in range(steps + 1):
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_three_steps_are_those_of_timm_to_the_bit(full_size):
    torch.manual_seed(7)
    ours = timm.create_model(f"local-dir:{full_size}", pretrained=True, num_classes=10)
    # timm's own route: the backbone's tensors as a file that it adapts to ten classes, with the same seed.
    whole = timm.create_model(f"local-dir:{full_size}", pretrained=True)
    backbone = {k: v for k, v in whole.state_dict().items() if not k.startswith("kappa_head.")}
    torch.manual_seed(7)
    theirs = timm.create_model(
        "resnet18",
        pretrained=True,
        num_classes=10,
        pretrained_cfg_overlay={"state_dict": backbone, "num_classes": 0},
    )
    assert torch.equal(theirs.layer4[1].conv2.weight, backbone["layer4.1.conv2.weight"])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    found, expected = losses_of(ours), losses_of(theirs)
    assert found == expected
    assert found[-1] != found[0]
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_parameter_is_reached_by_the_loss(load, kind, images):
    """What DistributedDataParallel asks of a model."""
    model = load(kind, num_classes=10).train()
    model(images).sum().backward()
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert not any(name.startswith(("kappa_head", "prototype_head")) for name in names)
    kept = load(kind, num_classes=10, kappa_head=True).train()
    kept(images).sum().backward()
    unused = [name for name, p in kept.named_parameters() if p.grad is None]
    assert unused  # so the test can fail
    assert all(name.startswith("kappa_head") for name in unused)


def groups(model, **kwargs):
    """timm's layer-decay groups with names in place of tensors."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.7, **kwargs)
    return [{**group, "params": [names[id(p)] for p in group["params"]]} for group in found]


@pytest.mark.parametrize("kind", BACKBONES)
def test_layer_decay_has_the_groups_of_timm(load, small, kind):
    model = load(kind, num_classes=10)
    args = {k: v for k, v in model._model_args.items() if k not in ("latent_dim", "kappa_map", "kappa_head")}
    twin = plain_twin(model, kind, args)
    assert groups(model) == groups(twin)
    assert len({group["lr_scale"] for group in groups(model)}) > 3
    head = [g for g in groups(small(kind)) if any(n.startswith("kappa_head") for n in g["params"])]
    assert {group["lr_scale"] for group in head} == {1.0}  # κ's head counts as a last layer


def test_timm_schedules_apply_the_layer_decay(load):
    """The factors are in the groups; it is timm's schedulers that multiply by them."""
    model = load("vit", num_classes=10)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
    CosineLRScheduler(optimizer, t_initial=10, t_in_epochs=False).step_update(0)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3 * s for s in scales])
    assert min(scales) < 0.5
