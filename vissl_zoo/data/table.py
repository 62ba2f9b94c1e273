"""A data set as this project sees it: rows of encoded images, perhaps labelled."""

import copy
import hashlib
import os
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
from datasets import Dataset, ReadInstruction
from PIL.Image import Image as PILImage

from vissl_zoo.data import columns
from vissl_zoo.data.decode import content_hash, decode, encoded_size
from vissl_zoo.data.sources import Source, find_source, read_value, shown_name
from vissl_zoo.errors import UserError

# A part of a split as `datasets` writes it, and a bound of it that is no percentage.
_SLICED, _COUNT = re.compile(r"([^\[\]]+)\[([^\[\]+]*)\]"), re.compile(r"(\d+)(?![\d%])")


def open_images(
    path: str | os.PathLike,
    *,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
) -> "ImageTable":
    """Open one split of a data set of images; no image is decoded yet.

    Args:
        path: an image file, a parquet file, or a folder or glob of either; images may lie in class folders. "shapes" is
            the embedded data (write ./shapes for a folder of that name). Anything else is the id of a Hugging Face Hub
            data set, org/name or org/name:config.
        split: its name, or a synonym such as "val", or a part of it such as train[:45000], train[90%:] or
            train[10%:20%]. Data without splits are all "train".
        image_column: by default the first Image feature, else a column of encoded bytes.
        label_column: by default a ClassLabel, else integers or strings called "label".

    Raises:
        UserError: nothing is there, or no such split, part or column, or the data are empty or unreadable.
    """
    path = os.fspath(path)
    name, bounds = split_name(path, split)
    source = find_source(path)
    split = source.find_split(name)
    dataset = source.load(split)
    if not len(dataset):
        raise UserError(f'{path}: the split "{split}" is empty')
    image = columns.image_column(dataset, path, image_column)
    label = columns.label_column(dataset, path, label_column)
    labels = names = None
    if label is not None:
        others = (source.load(other) for other in source.splits if other != split)
        labels, names = columns.read_labels(dataset, label, path, others, name_given=label_column is not None)
    table = ImageTable(source, split, dataset, image, labels, names)
    return table if bounds is None else table.part(bounds)


def available_splits(path: str | os.PathLike) -> list[str]:
    """The names of the whole splits at `path` (see `open_images`); UserError when nothing is there."""
    return list(find_source(os.fspath(path)).splits)


class ImageTable:
    """One split of a data set: `len(table)` rows, each an encoded image. `open_images` makes it.

    Threads may read from it at the same time, and it pickles, so that worker processes can, too.

    Attributes:
        path, split: what was opened.
        whole: the split of which it may be a part.
        rows: int64 (N,), which of the split's these are.
        labels: int64 (N,), -1 where a row has no label; None when no row has one.
        class_names: the name of each label, or None when the labels are bare integers or None.
        encoded: the one column with the undecoded images.
        root: the folder against which file names are shown, where there is one.
    """

    def __init__(
        self,
        source: Source,
        split: str,
        dataset: Dataset,
        image_column: str,
        labels: np.ndarray | None,
        class_names: list[str] | None,
    ):
        self.path, self.split, self.whole = source.path, split, split
        self.labels, self.class_names = labels, class_names
        # Undecoded: one corrupt image must cost that row and not the table.
        dataset = columns.undecoded(dataset, image_column, dataset.features[image_column])
        self._dataset, self._column, self.root = dataset, image_column, source.root
        self.encoded = dataset.select_columns([image_column])  # so that reading a row reads nothing else
        self._whole_fingerprint = partial(source.fingerprint, split, dataset)
        self.rows = np.arange(len(self.encoded))

    def __len__(self) -> int:
        return len(self.encoded)

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"{self.labels.max() + 1} classes"
        return f"ImageTable({self.path!r}, split={self.split!r}, {len(self)} images, {labels})"

    @cached_property
    def fingerprint(self) -> str:
        """A name for these images, equal as long as the data are.

        Of files it tells names, sizes and times, and some of what a few of them hold.
        """
        rows = hashlib.sha256(self.rows.tobytes()).hexdigest()[:8]
        return f"{self._whole_fingerprint()}-{self._column}-{rows}"

    def select(self, rows: np.ndarray) -> "ImageTable":
        """The table of some rows (M,) int64, in their order, numbered 0 … M - 1; nothing is copied."""
        rows = np.asarray(rows, dtype=np.int64)
        chosen = copy.copy(self)
        chosen.__dict__.pop("fingerprint", None)
        chosen._dataset, chosen.encoded = self._dataset.select(rows), self.encoded.select(rows)
        chosen.labels = None if self.labels is None else self.labels[rows]
        chosen.rows = self.rows[rows]
        return chosen

    def part(self, bounds: str) -> "ImageTable":
        """The table of a slice of the rows, such as "90%:", called train[90%:]; UserError when that is empty."""
        chosen = self.select(sliced_rows(self.path, self.split, bounds, len(self)))
        chosen.split = f"{self.split}[{bounds}]"
        if chosen.labels is not None and (chosen.labels == -1).all():
            chosen.labels = chosen.class_names = None
        return chosen

    def is_same_as(self, other: "ImageTable") -> bool:
        """Whether both are the same images of one data set, in the same order."""
        same = (self.path, self.whole) == (other.path, other.whole)
        return same and np.array_equal(self.rows, other.rows)

    def shared_with(self, other: "ImageTable") -> int:
        """How many images of one data set stand in both tables."""
        if (self.path, self.whole) != (other.path, other.whole):
            return 0
        return len(np.intersect1d(self.rows, other.rows))

    def name(self, row: int) -> str:
        """What to call an image: its path relative to the data set where it has one, else "row 17"."""
        return shown_name(self.encoded[int(row)][self._column], self.root) or f"row {int(row)}"

    def read(self, row: int) -> PILImage:
        """The image as upright 8-bit RGB (see `to_rgb`); raises BadImage when it cannot be decoded."""
        return self.read_with_size(row)[0]

    def read_with_size(
        self, row: int, shape: tuple[int, int] | None = None
    ) -> tuple[PILImage, tuple[int, int]]:
        """(RGB image, original (height, width)); see `decode` for what `shape`, (height, width), allows."""
        return self._read(row, lambda encoded: decode(encoded, shape))

    def size(self, row: int) -> tuple[int, int]:
        """The upright (height, width) in pixels, from the file's header; raises BadImage."""
        return self._read(row, encoded_size)

    def content_hash(self, row: int) -> str:
        """Sixteen hex digits of the SHA-256 of the image's file, as it is stored; raises BadImage."""
        return self._read(row, content_hash)

    def column(self, name: str) -> np.ndarray | None:
        """The values (N,) of another column, such as "ambiguity"; None when there is none of that name."""
        if name not in self._dataset.column_names or name == self._column:
            return None
        return columns.values(self._dataset, name).to_numpy()

    def _read(self, row: int, how: Callable) -> Any:
        value = self.encoded[int(row)][self._column]
        return read_value(how, value, self.root, int(row), f"row {int(row)}")


def split_name(path: str, text: str) -> tuple[str, str | None]:
    """("train", "90%:") of "train[90%:]", and ("train", None) of "train"; UserError when it is neither."""
    if "[" not in text and "]" not in text:
        return text, None
    name, bounds = match.groups() if (match := _SLICED.fullmatch(text.replace(" ", ""))) else ("", "")
    _parse_bounds(f'{path}: "{text}"', bounds)
    return name, bounds


def sliced_rows(path: str, split: str, bounds: str, count: int) -> np.ndarray:
    """The rows int64 (M,) of a split of `count` images that `bounds`, such as "10%:20%", stands for.

    `datasets` rounds a percentage to the nearest row: train[:90%] and train[90%:] are all of train and share no image.

    Raises:
        UserError: it is no part of a split, it is empty, or a bound lies outside the split.
    """
    shown = f'{path}: "{split}[{bounds}]"'
    (part,) = _parse_bounds(shown, bounds).to_absolute({"split": count})
    if any(int(bound) > count for bound in _COUNT.findall(bounds)):
        raise UserError(f'{shown} reaches beyond the {count} images of "{split}"')
    if part.from_ >= part.to:
        raise UserError(f'{shown} is empty; "{split}" has {count} images')
    return np.arange(part.from_, part.to)


def _parse_bounds(shown: str, bounds: str) -> ReadInstruction:
    try:
        # Not the split's own name: `datasets` allows no hyphen there.
        return ReadInstruction.from_spec(f"split[{bounds}]")
    except ValueError as error:
        what = "is no split; a part of one is written train[:45000] or train[90%:]"
        raise UserError(f"{shown} {what}") from error
