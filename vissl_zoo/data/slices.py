"""Parts of a split, written as `datasets` writes them: train[:45000], train[90%:], train[10%:20%]."""

import re

import numpy as np

from vissl_zoo.errors import UserError

_SLICED = re.compile(r"([^\[\]]+)\[(.*)\]")
_BOUND = re.compile(r"(-?\d+)(%?)")


def split_name(path: str, text: str) -> tuple[str, str | None]:
    """("train", "90%:") of "train[90%:]", and ("train", None) of "train"; UserError when it is neither."""
    if "[" not in text and "]" not in text:
        return text, None
    match = _SLICED.fullmatch(text.strip())
    bounds = match[2].split(":") if match else []
    if len(bounds) != 2 or not all(b.strip() == "" or _BOUND.fullmatch(b.strip()) for b in bounds):
        raise UserError(
            f'{path}: "{text}" is no split; a part of one is written train[:45000] or train[90%:]'
        )
    return match[1].strip(), ":".join(b.strip() for b in bounds)


def sliced_rows(path: str, split: str, bounds: str, count: int) -> np.ndarray:
    """The rows int64 (M,) of a split of `count` images that `bounds`, such as "10%:20%", stands for.

    A negative bound counts from the end. A percentage is rounded to the nearest row, so that train[:90%] and
    train[90%:] are all of train and share no image.

    Raises:
        UserError: the part is empty, or a bound lies outside the split.
    """
    first, _, last = bounds.partition(":")
    start, stop = _row(first, count, 0), _row(last, count, count)
    shown = f'{path}: "{split}[{bounds}]"'
    if not (0 <= start <= count and 0 <= stop <= count):
        raise UserError(f'{shown} reaches beyond the {count} images of "{split}"')
    if start >= stop:
        raise UserError(f'{shown} is empty; "{split}" has {count} images')
    return np.arange(start, stop)


def _row(bound: str, count: int, default: int) -> int:
    if not bound:
        return default
    number, percent = _BOUND.fullmatch(bound).groups()
    row = round(int(number) * count / 100) if percent else int(number)
    return row + count if number.startswith("-") else row
