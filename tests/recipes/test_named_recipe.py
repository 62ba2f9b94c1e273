"""The named recipes: what they are called, what they promise, and the paper's settings (App. B)."""

import dataclasses

import pytest

from vissl_zoo.methods import METHODS, RECIPES
from vissl_zoo.models import entrypoints
from vissl_zoo.recipes import DEFAULT, MethodOptions, Views
from vissl_zoo.views import ViewPipeline

NAMES = [
    "demo",
    "vi_simsiam_resnet18_cifar10",
    "vi_simsiam_beta_resnet18_cifar10",
    "vi_simsiam_paper_resnet18_cifar10",
    "vi_simsiam_paper_resnet18_imagenet100",
    "simsiam_resnet18_cifar10",
    "simsiam_resnet18_imagenet100",
    "dino_resnet18_cifar10",
    "dino_resnet18_imagenet100",
]
every_recipe = pytest.mark.parametrize("named", RECIPES.values(), ids=list(RECIPES))


def test_names():
    assert set(NAMES) <= set(RECIPES)
    assert all(name == named.name for name, named in RECIPES.items())
    assert DEFAULT == "demo"


@every_recipe
def test_is_valid_and_says_what_it_is(named):
    named.recipe.validate()
    ViewPipeline(named.recipe.image_size, **dataclasses.asdict(named.recipe.views))
    for text in (named.about, named.command, named.cost, named.expected):
        assert text.strip()
        assert text in named.statement
    assert named.command.startswith("accelerate launch train.py")
    assert named.recipe.model in entrypoints()
    assert named.recipe.model.startswith(named.recipe.method.name)


@every_recipe
def test_command_names_recipe_and_data(named):
    words = named.command.split()[3:]
    if named.name == DEFAULT:
        assert words == []
    else:
        assert words == [named.name, "--data.path", named.recipe.data.path]


@every_recipe
def test_options_are_the_methods_own(named):
    options = named.recipe.method
    assert type(options) is METHODS[options.name].Options
    assert isinstance(options, MethodOptions)
    assert set(options.model_args()) == set(options.model_options)
    assert set(options.model_options) < {f.name for f in dataclasses.fields(options)}


@every_recipe
def test_models_options_default_as_the_models_do(named):
    import vissl_zoo

    options = type(named.recipe.method)()
    given = vissl_zoo.create_model(options.name, backbone="test_resnet", **options.model_args())
    plain = vissl_zoo.create_model(options.name, backbone="test_resnet")
    assert (given.kappa_head.latent_dim, given.kappa_head.kappa_map) == (
        plain.kappa_head.latent_dim,
        plain.kappa_head.kappa_map,
    )
    assert repr(given.prototype_head) == repr(plain.prototype_head)


def test_views_default_as_the_pipeline_does():
    pipeline = ViewPipeline(8)
    assert {k: getattr(pipeline, k) for k in dataclasses.asdict(Views())} == dataclasses.asdict(Views())


@pytest.mark.parametrize(
    "name, lr, batch, schedule",
    [
        ("vi_simsiam_paper_resnet18_imagenet100", 0.1, 512, "constant"),
        ("simsiam_resnet18_imagenet100", 0.2, 512, "cosine"),
        ("dino_resnet18_imagenet100", 0.03, 64, "cosine"),
    ],
)
def test_appendix_b(name, lr, batch, schedule):
    recipe = RECIPES[name].recipe
    assert (recipe.lr, recipe.batch_size, recipe.lr_batch_size) == (lr, batch, batch)
    assert (recipe.schedule, recipe.momentum, recipe.weight_decay) == (schedule, 0.9, 1e-4)
    assert (recipe.warmup_epochs, recipe.constant_predictor_lr, recipe.gradient_accumulation) == (0, False, 1)
    views = recipe.views
    assert (views.low, views.low_size, views.low_scale) == (6, 96, (0.05, 0.2))
    assert (recipe.image_size, recipe.epochs) == (224, 200)
    assert recipe.model.endswith("_resnet18")
    assert "imagenet-100" in recipe.data.path


@pytest.mark.parametrize("name", ["vi_simsiam_paper_resnet18_imagenet100", "simsiam_resnet18_imagenet100"])
def test_appendix_b_networks(name):
    method = RECIPES[name].recipe.method
    assert (method.latent_dim, method.kappa_map, method.hidden) == (2048, "softplus", 512)
    assert method.output_norm is False
    if method.name == "vi_simsiam":
        assert (method.variant, method.kappa_warmup) == ("paper", 0)


def test_appendix_b_dino():
    method = RECIPES["dino_resnet18_imagenet100"].recipe.method
    assert (method.teacher_temperature, method.student_temperature) == (0.04, 0.1)
    assert (method.center_momentum, method.teacher, method.prototypes) == (0.9, "shared", 2048)


@pytest.mark.parametrize("name", [n for n in NAMES if "cifar10" in n])
def test_cifar10_recipes(name):
    recipe = RECIPES[name].recipe
    assert (recipe.image_size, recipe.views.low, recipe.views.blur) == (64, 0, 0)
    assert "cifar10" in recipe.data.path
    assert getattr(recipe.method, "output_norm", True) is ("paper" not in name)
