"""What a store of images is: uint8 canvases by position, handed out in batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from vissl_zoo.data.decode import BadImage
from vissl_zoo.data.tally import BadImageTally


class Batch(NamedTuple):
    """Images at canvas size, with what is needed to crop and to label them."""

    images: torch.Tensor  # uint8 (B, 3, H, W), on an accelerator if the store lies there
    # int64 (B, 2), always on the CPU: the original (height, width) of each, before it was fitted to the canvas
    sizes: torch.Tensor
    indices: torch.Tensor  # int64 (B,): positions in the store; `store.rows[indices]` are rows of the table


class ImageStore(ABC):
    """The images of a table at one canvas size, by position 0 … len(store) - 1. `open_store` makes it.

    Attributes:
        canvas: (H, W) in pixels.
        rows: int64 (N,), the row of the table at each position.
    """

    def __init__(self, canvas: tuple[int, int], rows: np.ndarray, tally: BadImageTally):
        self.canvas, self.rows, self._tally = canvas, rows, tally

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def bad(self) -> list[BadImage]:
        """The corrupt images met so far, each once.

        In memory or in a map that is all of them, and none has a position; on the fly they are found while
        reading and keep their positions, where another image stands in.
        """
        return self._tally.images

    @abstractmethod
    def batches(self, index_batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield one batch for each array of positions (B,), in the given order.

        On the fly and from a map, positions are drawn from `index_batches` ahead of the batches yielded. On the
        fly a corrupt image is replaced by the next readable one of the store, whose position `Batch.indices`
        then gives; UserError when too many are corrupt.
        """
