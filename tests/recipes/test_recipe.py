"""What a recipe refuses before any data is read."""

import dataclasses
import math

import pytest

from vissl_zoo.errors import UserError
from vissl_zoo.methods import RECIPES

DEMO = RECIPES["demo"].recipe


def change(recipe, **changes):
    """`dataclasses.replace`, with a__b for the field b of the field a."""
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            value = dataclasses.replace(getattr(recipe, outer), **{inner: value})
        recipe = dataclasses.replace(recipe, **{outer: value})
    return recipe


def floats(options, prefix=""):
    """Names a__b of every field that holds a float or a pair of floats."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from floats(value, f"{field.name}__")
        elif isinstance(value, float) or (isinstance(value, tuple) and isinstance(value[0], float)):
            yield prefix + field.name


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("name", [*floats(DEMO), "clip_gradient", "max_minutes"])
def test_every_float_must_be_finite(name, wrong):
    outer, _, inner = name.partition("__")
    before = getattr(getattr(DEMO, outer), inner) if inner else getattr(DEMO, outer)
    value = (wrong, before[1]) if isinstance(before, tuple) else wrong
    with pytest.raises(UserError, match="--" + name.replace("__", r"\.").replace("_", "-")):
        change(DEMO, **{name: value}).validate()


@pytest.mark.parametrize(
    "changes, flag",
    [
        ({"lr": 0.0}, "--lr"),
        ({"lr": -1.0}, "--lr"),
        ({"batch_size": 0}, "--batch-size"),
        ({"batch_size": 1}, "--batch-size"),
        ({"image_size": 0}, "--image-size"),
        ({"epochs": 0}, "--epochs"),
        ({"max_steps": -1}, "--max-steps"),
        ({"gradient_accumulation": 0}, "--gradient-accumulation"),
        ({"log_every": 0}, "--log-every"),
        ({"save_every": 0}, "--save-every"),
        ({"report_images": 0}, "--report-images"),
        ({"max_minutes": 0.0}, "--max-minutes"),
        ({"threads": 0}, "--threads"),
        ({"clip_gradient": 0.0}, "--clip-gradient"),
        ({"momentum": 1.0}, "--momentum"),
        ({"momentum": -0.1}, "--momentum"),
        ({"weight_decay": -1e-4}, "--weight-decay"),
        ({"warmup_epochs": -1.0}, "--warmup-epochs"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"data__memory_gib": 0.0}, "--data.memory-gib"),
        ({"data__disk_gib": -1.0}, "--data.disk-gib"),
        ({"data__max_bad_fraction": 1.5}, "--data.max-bad-fraction"),
        ({"data__workers": -1}, "--data.workers"),
        ({"views__low": -1}, "--views.low"),
        ({"views__low": 2}, "--views.low-size"),
        ({"views__low": 2, "views__low_size": 0}, "--views.low-size"),
        ({"views__low": 2, "views__low_size": 32}, "--views.low-size"),  # they would pass for targets
        ({"method__hidden": 0}, "--method.hidden"),
        ({"method__latent_dim": -5}, "--method.latent-dim"),
    ],
)
def test_ranges(changes, flag):
    with pytest.raises(UserError) as error:
        assert change(DEMO, **changes).validate() is None  # and it raises nothing
    assert flag in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 1, "epochs": 0},  # the steps alone count
        {"momentum": 0.0},
        {"weight_decay": 0.0},
        {"seed": 2**32 - 1},
        {"data__max_bad_fraction": 1.0},
        {"data__workers": 0},
        {"views__low": 2, "views__low_size": 31},
        {"views__low_size": 96},  # said, and not used
        {"batch_size": 2},
    ],
)
def test_limits_that_are_allowed(changes):
    assert change(DEMO, **changes).validate() is None  # and it raises nothing
