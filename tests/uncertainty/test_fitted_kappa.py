"""fit_kappa: the trunk is unchanged, the model represents, and what cannot be fitted is said in one line."""

import pytest
import timm
import torch
from PIL import Image

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model
from vissl_zoo.uncertainty.fitted_kappa import refit_kappa

QUICK = {"views": 2, "steps": 15, "workers": 1, "progress": False}


@pytest.mark.parametrize("name, size, num_classes", [("test_resnet", 32, 0), ("test_vit", 160, 10)])
def test_the_trunk_is_bit_equal_and_the_given_model_has_no_head(
    backbone, write_photos, tmp_path, name, size, num_classes
):
    given = backbone(name, num_classes=num_classes)
    before, kind = {k: v.clone() for k, v in given.state_dict().items()}, type(given)
    x = torch.randn(2, 3, size, size)
    expected = given(x)
    fitted = vissl_zoo.fit_kappa(given, write_photos(tmp_path, 20, gray=4), image_size=size, **QUICK)
    assert type(given) is kind
    assert given.state_dict().keys() == before.keys()
    assert not hasattr(given, "kappa_head")
    after = {k: v for k, v in fitted.state_dict().items() if not k.startswith("kappa_head.")}
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert torch.equal(fitted(x), expected)
    said = fitted.represent(x)
    assert said.embedding.shape == (2, given.num_features)
    assert (said.kappa > 0).all()
    assert fitted.kappa_head.latent_dim == given.num_features
    fit = fitted.kappa_fit
    assert (fit.images, fit.held_out, fit.views) == (20, 2, 2)


def test_images_in_any_form_give_the_same(backbone, write_photos, tmp_path):
    table = open_images(write_photos(tmp_path, 12))
    heads = [
        vissl_zoo.fit_kappa(backbone(), images, image_size=32, **QUICK).kappa_head.state_dict()
        for images in (tmp_path, str(tmp_path), table)
    ]
    assert all(torch.equal(head[k], heads[0][k]) for head in heads for k in head)


def test_refits_a_model_that_has_a_head(write_photos, tmp_path):
    torch.manual_seed(0)
    given = vissl_zoo.create_model("simsiam", backbone="test_resnet", latent_dim=16)
    old = given.kappa_head
    fitted = vissl_zoo.fit_kappa(given, write_photos(tmp_path, 12), image_size=32, kappa_hidden=5, **QUICK)
    assert given.kappa_head is old
    assert fitted.kappa_head.latent_dim == given.num_features
    assert fitted.kappa_head.mlp.fc1.out_features == 5


def test_a_dino_model_keeps_its_entropy(write_photos, tmp_path):
    given = vissl_zoo.create_model("dino", backbone="test_resnet", latent_dim=16, prototypes=8)
    with pytest.raises(UserError, match="entropy"):
        vissl_zoo.fit_kappa(given, write_photos(tmp_path, 12), image_size=32, **QUICK)


def test_low_precision_models_are_fitted_in_float32(backbone, write_photos, tmp_path):
    fitted = vissl_zoo.fit_kappa(
        backbone().to(torch.bfloat16), write_photos(tmp_path, 12), image_size=32, **QUICK
    )
    assert fitted.kappa_head.mlp.fc1.weight.dtype == torch.bfloat16
    assert torch.isfinite(fitted.represent(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16)).kappa).all()


def test_identical_images_still_have_different_views(backbone, tmp_path):
    for i in range(12):
        Image.radial_gradient("L").save(tmp_path / f"{i}.png")
    fitted = vissl_zoo.fit_kappa(backbone(), tmp_path, image_size=32, **QUICK)
    assert torch.isfinite(fitted.represent(torch.randn(2, 3, 32, 32)).kappa).all()


def test_too_few_images(backbone, write_photos, tmp_path):
    write_photos(tmp_path, 9)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="10 images or more; 9 can be read"):
        vissl_zoo.fit_kappa(backbone(), tmp_path, image_size=32, **QUICK)


@pytest.mark.parametrize(
    "options", [{"views": 1}, {"steps": 0}, {"lr": 0.0}, {"kappa_map": "relu"}, {"target": "luck"}]
)
def test_bad_options(backbone, tmp_path, options):
    with pytest.raises(ValueError, match="must be"):
        vissl_zoo.fit_kappa(backbone(), tmp_path, **{**QUICK, **options})


def test_no_timm_model(tmp_path):
    with pytest.raises(TypeError, match="timm model"):
        vissl_zoo.fit_kappa(torch.nn.Linear(3, 3), tmp_path)


def test_a_trained_model_is_refitted_in_place(write_photos, tmp_path):
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16, num_classes=0).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    table = open_images(write_photos(tmp_path, 40))
    fit = refit_kappa(model, table, 32, seed=1, workers=1)
    assert (fit.images, fit.held_out, fit.views, fit.target) == (40, 4, 4, "clusters")
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if not k.startswith("kappa_head."))
    assert not torch.equal(after["kappa_head.mlp.fc1.weight"], before["kappa_head.mlp.fc1.weight"])
    assert (model.kappa_head.latent_dim, model.kappa_head.kappa_map) == (16, "exp")
    loaded = timm.create_model(
        f"local-dir:{export_model(model, tmp_path / 'export')}", pretrained=True
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.represent(x).kappa, model.represent(x).kappa)
    first = {key: value.clone() for key, value in after.items()}
    refit_kappa(model, table, 32, seed=1, workers=1)  # whatever the head was before
    assert all(torch.equal(model.state_dict()[k], v) for k, v in first.items())


def test_a_collapsed_model_keeps_its_head(write_photos, tmp_path):
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16, num_classes=0).eval()
    model.global_pool.register_forward_hook(lambda module, inputs, pooled: torch.ones_like(pooled))
    head, args = model.kappa_head, dict(model._model_args)
    with pytest.raises(UserError, match="nearly the same embedding"):
        refit_kappa(model, open_images(write_photos(tmp_path, 12)), 32, workers=1)
    assert model.kappa_head is head
    assert model._model_args == args
