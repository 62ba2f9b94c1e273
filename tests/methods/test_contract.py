"""One contract, every method a row: what training, export and the README ask of each of them."""

import copy
import dataclasses

import pytest
import torch

from vissl_zoo import methods
from vissl_zoo.methods import METHODS, create_method, table
from vissl_zoo.methods.base import Latents, Row, _pairs

# Which of the paper's three terms are numbers; the others are mechanisms, or there are none.
NUMBERS = {
    "simsiam": {"alignment"},
    "simclr": {"alignment", "uniformity"},
    "dino": {"alignment"},
    "barlow_twins": {"alignment", "uniformity"},
    "byol": {"alignment"},
    "vicreg": {"alignment", "uniformity"},
    "vi_simsiam": {"alignment"},
}
BACKBONES = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"]


def optimizer_for(method):
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_trains_with_no_parameter_unused(build, views, method_name, backbone):
    method = build(method_name, backbone)
    before = copy.deepcopy(method.state_dict())
    optimizer = optimizer_for(method)
    for step in range(2):
        method.on_step_start(step / 2)
        objective = method(views(2, 2 if backbone in ("test_resnet", "test_efficientnet") else 0, seed=step))
        optimizer.zero_grad()
        objective.loss.backward()
        unused = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
        assert not unused
        optimizer.step()
        method.on_step_end()
    assert torch.isfinite(objective.loss)
    assert (objective.latents.kappa > 0).all()
    moved = [n for n, p in method.named_parameters() if p.requires_grad and not torch.equal(p, before[n])]
    assert any(n.startswith("model.kappa_head") for n in moved)
    assert any(n.startswith("model.") and "head" not in n for n in moved)


def test_loss_is_minus_the_terms_plus_the_fit(build, views, method_name):
    method = build(method_name)
    objective = method(views(2, 3))
    assert method.signals(objective.latents)  # something tells of collapse
    numbers = objective.terms()
    fit = numbers.pop("kappa_fit", 0.0)
    torch.testing.assert_close(objective.loss, -sum(numbers.values()) + fit)
    assert "alignment" in numbers


def test_every_cell_of_the_row_is_filled(method_name):
    row = METHODS[method_name].row
    assert isinstance(row, Row)
    assert all(getattr(row, f.name).strip() for f in dataclasses.fields(row))


def test_every_method_has_a_row_here():
    assert NUMBERS.keys() == METHODS.keys()


def test_mechanisms_are_none_and_no_fake_zero(build, views, method_name):
    objective = build(method_name)(views())
    terms = {name: getattr(objective, name) for name in ("alignment", "uniformity", "kl")}
    assert {name for name, term in terms.items() if term is not None} == NUMBERS[method_name]
    assert all(term.requires_grad and term.item() != 0 for term in terms.values() if term is not None)


def test_the_class_is_a_name_of_the_package_and_takes_its_options(build, method_name):
    model = build(method_name).model
    cls = getattr(methods, METHODS[method_name].__name__)
    options = cls.Options(kappa_weight=3.0)
    assert cls(model, options).options == cls(model, kappa_weight=3.0).options == options
    with pytest.raises(TypeError, match="kapa_weight"):
        cls(model, kapa_weight=3.0)
    built = model._model_args["kappa_map"]
    assert cls(model, kappa_map=built).options.kappa_map == built
    with pytest.raises(ValueError, match="kappa_map is the model's"):
        cls(model, kappa_map="softplus" if built == "exp" else "exp")


def test_table_has_a_column_for_each_method():
    header, rule, *rows = table().splitlines()
    assert header.count("|") == rule.count("|") == len(METHODS) + 2
    assert all(METHODS[name].row.method in header for name in METHODS)
    assert len(rows) == 10


def test_low_resolution_views_share_a_pass_and_are_no_targets(build, views, method_name):
    method = build(method_name)
    calls = []
    hook = method.model.register_forward_hook(lambda module, args, out: calls.append(tuple(args[0].shape)))
    latents = method.infer(views(2, 6))
    hook.remove()
    assert calls == [(12, 3, 32, 32), (36, 3, 16, 16)]
    assert latents.mean.shape[:2] == (8, 6)
    assert latents.target.shape[:2] == (2, 6)
    if "stop-gradient" in METHODS[method_name].row.uniformity:
        assert not latents.target.requires_grad


def test_order_of_images_and_of_standard_views_does_not_matter(build, views, method_name):
    a, b = views()
    shuffle = torch.tensor([3, 1, 5, 0, 2, 4])
    losses = [build(method_name)(v).loss for v in ([a, b], [b, a], [a[shuffle], b[shuffle]])]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [m for m in METHODS if m != "vi_simsiam"])
def test_fitting_kappa_leaves_the_trunk_alone(build, views, name):
    method = build(name)
    method.kappa_fit(method.infer(views())).backward()
    touched = {n.split(".")[1] for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"kappa_head"}


def test_kappa_is_fitted_anew_where_it_is_the_uncertainty_and_beside_the_trunk(build, method_name):
    assert build(method_name).kappa_is_detached == (method_name != "dino")  # whose uncertainty is an entropy
    if method_name == "vi_simsiam":
        assert not any(build(method_name, variant=name).kappa_is_detached for name in ("paper", "beta"))


@pytest.mark.parametrize("name", ["paper", "beta", "detached"])
def test_only_detached_keeps_kappa_from_the_trunk(build, views, name):
    method = build("vi_simsiam", variant=name)
    latents = method.infer(views())
    gradients = torch.autograd.grad(
        latents.kappa.sum(), list(method.model.parameters()), allow_unused=True, retain_graph=True
    )
    names = [n for n, _ in method.model.named_parameters()]
    trunk = [g for n, g in zip(names, gradients, strict=True) if not n.startswith("kappa_head")]
    assert all(g is None for g in trunk) == (name == "detached")


def test_detached_trains_the_trunk_exactly_as_simsiam(build, views):
    gradients = []
    for name in ("simsiam", "vi_simsiam"):
        method = build(name)
        method(views(2, 2)).loss.backward()
        gradients.append({n: p.grad for n, p in method.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0, msg=name)


def test_autocast_keeps_loss_and_kappa_in_float32_or_better(build, views, method_name):
    method = build(method_name, dtype=torch.float32)
    plain = copy.deepcopy(method)(views(dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method(views(dtype=torch.float32))
    assert mixed.latents.kappa.dtype == torch.float32
    assert mixed.loss.dtype in (torch.float32, torch.float64)
    assert len(mixed.latents.kappa.unique()) == mixed.latents.kappa.numel()  # bfloat16 would tie
    torch.testing.assert_close(mixed.loss, plain.loss, rtol=0.05, atol=0.3, check_dtype=False)


def test_export_is_a_model_that_represents(build, views, method_name):
    method = build(method_name, dtype=torch.float32).eval()
    model = method.exported_model()
    x = views(dtype=torch.float32)[0]
    result = model.represent(x)
    torch.testing.assert_close(result.embedding, model(x))
    assert result.kappa.shape == result.uncertainty.shape == (6,)
    for head in method.heads().values():
        assert head.state_dict()


def test_unknown_names_and_options_are_refused(build):
    model = build("vi_simsiam").model
    with pytest.raises(ValueError, match="vi_simsiam"):
        create_method("simsam", model)
    with pytest.raises(ValueError, match="variant"):
        create_method("vi_simsiam", model, variant="papre")
    with pytest.raises(ValueError, match="beta"):
        create_method("vi_simsiam", model, beta=2.0)
    with pytest.raises(ValueError, match="teacher"):
        build("dino", teacher="none")
    with pytest.raises(ValueError, match="temperature"):
        build("dino", student_temperature=0.0)
    model.reset_classifier(3)
    with pytest.raises(ValueError, match="kappa head"):
        create_method("vi_simsiam", model)


def test_pairs_first_asked_for_in_inference_serve_a_training():
    """They are kept, and what is made in inference mode could not be saved for a backward pass."""
    _pairs.cache_clear()
    y = torch.randn(3, 5, 7)
    with torch.inference_mode():
        Latents(y, mean=y, target=y, kappa=y[..., 0]).paired()
    mean = torch.randn(3, 5, 7, requires_grad=True)
    Latents(y, mean=mean, target=y, kappa=y[..., 0]).paired()[0].sum().backward()
    assert torch.equal(mean.grad, torch.full_like(mean, 2.0))
