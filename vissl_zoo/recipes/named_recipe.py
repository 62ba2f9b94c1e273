"""A recipe under its name, and the two bases that a method's recipes are changes of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vissl_zoo.recipes.recipe import Data, MethodOptions, Recipe, Views

NOT_MEASURED = "not measured by this project yet"


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe under its name, with what a reader asks first.

    `cost` and `expected` say where a figure comes from; what nobody has measured yet says so.
    """

    name: str
    recipe: Recipe
    about: str
    cost: str = NOT_MEASURED
    expected: str = NOT_MEASURED

    @property
    def command(self) -> str:
        """The command that runs it."""
        if self.name == "demo":
            return "accelerate launch train.py"
        return f"accelerate launch train.py {self.name} --data.path {self.recipe.data.path}"

    @property
    def statement(self) -> str:
        """What it is, its command, its cost and what to expect: the head of its `--help`."""
        return "\n\n".join(
            [self.about, f"Command: {self.command}", f"Cost: {self.cost}", f"Expected: {self.expected}"]
        )


def cifar10(
    method: MethodOptions,
    about: str,
    *,
    variant: str = "",
    cost: str = f"about 200 epochs of ResNet-18 at 64 pixels; {NOT_MEASURED}",
    expected: str = NOT_MEASURED,
    **changes: Any,
) -> NamedRecipe:
    """A ResNet-18 on CIFAR-10: 64 pixels and two views.

    Args:
        method: the options.
        about: one line for the lists.
        variant: stands in the recipe's name behind the method's.
        cost: as in `NamedRecipe`.
        expected: as in `NamedRecipe`.
        **changes: fields of `Recipe` that differ from its defaults.
    """
    # Images of 32 pixels are blurred enough: SimSiam's own CIFAR recipe leaves the blur out.
    base = {"data": Data(path="uoft-cs/cifar10"), "views": Views(blur=0.0), "image_size": 64}
    return _resnet18("cifar10", method, variant, base | changes, about, cost, expected)


def imagenet100(
    method: MethodOptions,
    about: str,
    *,
    variant: str = "",
    cost: str = f"four V100 for the paper's methods of this size; {NOT_MEASURED}",
    expected: str = NOT_MEASURED,
    **changes: Any,
) -> NamedRecipe:
    """A ResNet-18 on ImageNet-100 with the views of App. B: two, and six of 96 pixels. The rest is as in `cifar10`."""
    base = {"data": Data(path="clane9/imagenet-100"), "views": Views(low=6, low_size=96), "image_size": 224}
    return _resnet18("imagenet100", method, variant, base | changes, about, cost, expected)


def _resnet18(
    data: str, method: MethodOptions, variant: str, changes: dict[str, Any], *texts: str
) -> NamedRecipe:
    model = f"{method.name}_resnet18"
    name = "_".join(filter(None, [method.name, variant, "resnet18", data]))
    return NamedRecipe(name, Recipe(method=method, model=model, **changes), *texts)
