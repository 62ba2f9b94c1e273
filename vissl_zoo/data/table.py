"""A data set as this project sees it: rows of encoded images, perhaps labelled."""

import copy
import hashlib
import os
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from datasets import Dataset, Image
from PIL.Image import Image as PILImage

from vissl_zoo.data import columns
from vissl_zoo.data.decode import BadImage, decode, image_size, why_unreadable
from vissl_zoo.data.slices import sliced_rows, split_name
from vissl_zoo.data.sources import Source, find_source
from vissl_zoo.errors import UserError


def open_images(
    path: str | os.PathLike,
    *,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
) -> "ImageTable":
    """Open one split of a data set of images; no image is decoded yet.

    Args:
        path: "shapes" (the embedded data; write ./shapes for a folder of that name), a folder of images with
            or without class folders, an image file, a parquet file, a folder or glob of either, or else
            the id of a Hugging Face Hub data set, org/name or org/name:config.
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
        others = [s for s in source.splits if s != split] if columns.is_string_column(dataset, label) else []
        labels, names = columns.read_labels(dataset, label, path, (source.load(s) for s in others))
    table = ImageTable(source, split, dataset, image, labels, names)
    return table if bounds is None else table.part(bounds)


def available_splits(path: str | os.PathLike) -> list[str]:
    """The names of the whole splits at `path` (see `open_images`); UserError when nothing is there."""
    return list(find_source(os.fspath(path)).splits)


class ImageTable:
    """One split of a data set: `len(table)` rows, each an encoded image. `open_images` makes it.

    Attributes:
        path, split: what was opened.
        whole: the split of which it may be a part.
        rows: int64 (N,), which of the split's these are.
        labels: int64 (N,), -1 where a row has no label; None when no row has one.
        class_names: the name of each label, or None when the labels are bare integers or None.

    It pickles, so that worker processes can read from it.
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
        self.path, self.split = source.path, split
        self.whole = split
        self.labels, self.class_names = labels, class_names
        # Undecoded: one corrupt image must cost that row and not the table.
        if isinstance(dataset.features[image_column], Image):
            dataset = dataset.cast_column(image_column, Image(decode=False))
        self._dataset, self._column = dataset, image_column
        self._images = dataset.select_columns([image_column])  # so that reading a row reads nothing else
        self.rows = np.arange(len(self._images))
        self._root, self._fingerprint = source.root, source.fingerprint

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"{self.labels.max() + 1} classes"
        return f"ImageTable({self.path!r}, split={self.split!r}, {len(self)} images, {labels})"

    @cached_property
    def fingerprint(self) -> str:
        """A name for these images, equal as long as the data are: of files, their names, sizes and
        times, and some of what a few of them hold."""
        return f"{self._fingerprint(self.whole, self._dataset)}-{self._column}"

    def select(self, rows: np.ndarray) -> "ImageTable":
        """The table of some rows (M,) int64, in their order, numbered 0 … M - 1; nothing is copied."""
        rows = np.asarray(rows, dtype=np.int64)
        chosen = copy.copy(self)
        chosen.__dict__.pop("fingerprint", None)
        chosen._dataset, chosen._images = self._dataset.select(rows), self._images.select(rows)
        chosen.labels = None if self.labels is None else self.labels[rows]
        chosen.rows = self.rows[rows]
        which = hashlib.sha256(rows.tobytes()).hexdigest()[:8]
        chosen._fingerprint = partial(_selected_fingerprint, self._fingerprint, self._dataset, which)
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
        return self._name(row, self._images[int(row)][self._column])

    def read(self, row: int) -> PILImage:
        """The image as upright 8-bit RGB (see `to_rgb`); raises BadImage when it cannot be decoded."""
        return self.read_with_size(row)[0]

    def read_with_size(
        self, row: int, shape: tuple[int, int] | None = None
    ) -> tuple[PILImage, tuple[int, int]]:
        """(RGB image, original (height, width)); see `decode` for what `shape`, (height, width), allows."""
        return self._decode(row, lambda encoded: decode(encoded, shape))

    def size(self, row: int) -> tuple[int, int]:
        """The upright (height, width) in pixels, from the file's header; raises BadImage."""
        return self._decode(row, image_size)

    def column(self, name: str) -> np.ndarray | None:
        """The values (N,) of another column, such as "ambiguity"; None when there is none of that name."""
        if name not in self._dataset.column_names or name == self._column:
            return None
        values = self._dataset.select_columns([name]).with_format("arrow")[:].column(name)
        return values.to_numpy()

    def _decode(self, row: int, how):
        value = self._images[int(row)][self._column]
        try:
            return how(self._encoded(value))
        # On damaged data Pillow raises OSError, SyntaxError, ValueError, struct.error, …: any Exception.
        except Exception as error:
            raise BadImage(int(row), self._name(row, value), why_unreadable(error)) from error

    def _encoded(self, value: dict | bytes | None) -> bytes | Path:
        path = None
        if isinstance(value, dict):
            value, path = value.get("bytes"), value.get("path")
        if value is None and path is None:
            raise ValueError("the row holds no image")
        return value if value is not None else (self._root or Path()) / path

    def _name(self, row: int, value: dict | bytes | None) -> str:
        path = value.get("path") if isinstance(value, dict) else None
        if not path:
            return f"row {int(row)}"
        path = Path(path)
        if self._root is not None and path.is_relative_to(self._root):
            path = path.relative_to(self._root)
        return str(path)


def _selected_fingerprint(fingerprint, dataset: Dataset, which: str, split: str, selected: Dataset) -> str:
    """That of the whole, and which rows of it: the source's own looks at files, and not at rows."""
    return f"{fingerprint(split, dataset)}-{which}"
