"""Parts of a split, written as `datasets` writes them: train[:45000], train[90%:], train[10%:20%]."""

import re

import numpy as np
from datasets import ReadInstruction

from vissl_zoo.errors import UserError

_SLICED = re.compile(r"([^\[\]]+)\[([^\[\]+]*)\]")
_COUNT = re.compile(r"(\d+)(?![\d%])")  # a bound that is no percentage


def split_name(path: str, text: str) -> tuple[str, str | None]:
    """("train", "90%:") of "train[90%:]", and ("train", None) of "train"; UserError when it is neither."""
    if "[" not in text and "]" not in text:
        return text, None
    name, bounds = match.groups() if (match := _SLICED.fullmatch(text.replace(" ", ""))) else ("", "")
    _parse(f'{path}: "{text}"', bounds)
    return name, bounds


def sliced_rows(path: str, split: str, bounds: str, count: int) -> np.ndarray:
    """The rows int64 (M,) of a split of `count` images that `bounds`, such as "10%:20%", stands for.

    `datasets` rounds a percentage to the nearest row: train[:90%] and train[90%:] are all of train and share no image.

    Raises:
        UserError: it is no part of a split, it is empty, or a bound lies outside the split.
    """
    shown = f'{path}: "{split}[{bounds}]"'
    (part,) = _parse(shown, bounds).to_absolute({"split": count})
    if any(int(bound) > count for bound in _COUNT.findall(bounds)):
        raise UserError(f'{shown} reaches beyond the {count} images of "{split}"')
    if part.from_ >= part.to:
        raise UserError(f'{shown} is empty; "{split}" has {count} images')
    return np.arange(part.from_, part.to)


def _parse(shown: str, bounds: str) -> ReadInstruction:
    try:
        return ReadInstruction.from_spec(
            f"split[{bounds}]"
        )  # not its own name: `datasets` allows no hyphen there
    except ValueError as error:
        what = "is no split; a part of one is written train[:45000] or train[90%:]"
        raise UserError(f"{shown} {what}") from error
