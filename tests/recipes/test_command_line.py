"""The command line: every field is a flag with help, and what cannot be read is one line."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap

import pytest

from vissl_zoo import recipes
from vissl_zoo.errors import UserError
from vissl_zoo.methods import RECIPES

FLAGS = """--output-dir --model --image-size --batch-size --epochs --max-steps --log-every --seed --resume
    --mixed-precision --data.path --data.image-column --data.label-column --data.split"""
ONE_OF_EACH_METHOD = ["demo", "simsiam_resnet18_cifar10", "dino_resnet18_cifar10"]


def parse(arguments):
    return recipes.parse(arguments, RECIPES)


def flags(options, prefix="--"):
    """(flag, docstring) of every leaf of a recipe."""
    documented = {}
    for cls in reversed(type(options).__mro__[:-1]):
        [body] = [node.body for node in ast.parse(textwrap.dedent(inspect.getsource(cls))).body]
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                documented[field.target.id] = ast.literal_eval(below.value)
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from flags(value, f"{flag}.")
        else:
            yield flag, documented.get(field.name, "")


def read_help(arguments, capsys, monkeypatch) -> str:
    """What --help prints, without its frames and line breaks."""
    monkeypatch.setenv("COLUMNS", "80")  # wider, and it would stand in two columns
    with pytest.raises(SystemExit) as stop:
        parse([*arguments, "--help"])
    assert stop.value.code == 0
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize("name", ONE_OF_EACH_METHOD)
def test_every_field_is_a_flag_with_help(name, capsys, monkeypatch):
    text = read_help([name], capsys, monkeypatch)
    for flag, docstring in flags(RECIPES[name].recipe):
        assert flag in text.replace(",", " ").split()
        assert len(docstring.split()) >= 3, f"{flag} has no help"
        assert " ".join(docstring.split()) in text, flag


def test_flags_have_the_names_that_are_promised():
    assert set(FLAGS.split()) <= {flag for flag, _ in flags(RECIPES["demo"].recipe)}


def test_help_lists_the_recipes(capsys, monkeypatch):
    assert all(name in read_help([], capsys, monkeypatch) for name in RECIPES)
    assert RECIPES["dino_resnet18_cifar10"].about in read_help(["dino_resnet18_cifar10"], capsys, monkeypatch)


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_alone_is_the_recipe(name):
    parsed = parse([name])
    assert parsed == dataclasses.replace(RECIPES[name].recipe, name=name)


def test_no_arguments_are_the_demo():
    assert parse([]) == parse(["demo"])


def test_flags_change_their_fields_and_no_other():
    typed = """demo --lr 0.5 --data.path x --views.scale 0.3 0.9 --method.beta 0.25 --resume --output-dir o
        --max-steps 7 --clip-gradient 2 --no-report"""
    changed = parse(typed.split())
    demo = RECIPES["demo"].recipe
    assert changed == dataclasses.replace(
        demo,
        lr=0.5,
        data=dataclasses.replace(demo.data, path="x"),
        views=dataclasses.replace(demo.views, scale=(0.3, 0.9)),
        method=dataclasses.replace(demo.method, beta=0.25),
        resume="on",
        name="demo",
        output_dir="o",
        max_steps=7,
        clip_gradient=2.0,
        report=False,
    )


def test_a_model_with_a_backbone_of_its_own_takes_the_place_of_the_recipes_backbone():
    assert parse(["demo"]).backbone is not None
    assert parse(["demo", "--model", "vi_simsiam_resnet18"]).backbone is None
    with pytest.raises(UserError, match="--backbone resnet50 needs --model vi_simsiam"):
        parse(["demo", "--model", "vi_simsiam_resnet18", "--backbone", "resnet50"])


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        (["dem"], "did you mean demo"),
        (["quux"], "vi_simsiam_resnet18_cifar10"),
        (["--learning-rate", "1"], "--learning-rate"),
        (["--data.pathh", "x"], "--data.path"),
        (["--lr"], "--lr"),
        (["--lr", "fast"], "fast"),
        (["--epochs", "1.5"], "--epochs"),
        (["--views.scale", "0.2"], "--views.scale"),
        (["--mixed-precision", "fp8"], "fp16"),
        (["--method.variant", "nope"], "detached"),
        (["demo", "demo"], "demo"),
        (["simsiam_resnet18_cifar10", "--method.beta", "1"], "--method.beta"),
    ],
)
def test_errors_are_one_line_that_names_the_culprit(arguments, culprit, capsys):
    with pytest.raises(UserError) as error:
        parse(arguments)
    assert culprit in str(error.value)
    assert "\n" not in str(error.value)
    assert not set("│╭╰─") & set(str(error.value))
    assert capsys.readouterr() == ("", "")
