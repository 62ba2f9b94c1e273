"""The corrupt images of a data set: counted, named, and tolerated up to a fraction."""

import logging

from vissl_zoo.data.decode import BadImage
from vissl_zoo.errors import UserError

_logger = logging.getLogger(__name__)
_NAMED = 5


class BadImageTally:
    """Collects corrupt images, each row once, against the fraction of the data that may be so."""

    def __init__(self, path: str, max_fraction: float):
        self.images: list[BadImage] = []
        self._path, self._max_fraction = path, max_fraction
        self._rows: set[int] = set()
        self._reported = 0

    def add(self, image: BadImage) -> None:
        """Count one, unless its row has been met before."""
        if image.row not in self._rows:
            self._rows.add(image.row)
            self.images.append(image)

    def check(self, total: int, *, at_least: int = 1) -> None:
        """Raise UserError when too many of the `total` images read, or all, are bad, if `at_least` were."""
        count = len(self.images)
        if total >= at_least and count and (count > self._max_fraction * total or count == total):
            self._reported = count  # the error says it
            raise UserError(
                f"{self._path}: {count} of {total} images cannot be read "
                f"(at most {self._max_fraction:.2%} may be corrupt); the first is {self.images[0]}"
            )

    def report(self, total: int) -> None:
        """Warn, once for each new one, how many are bad and which; the first five are named."""
        if len(self.images) == self._reported:
            return
        new = self.images[self._reported :]
        named = "; ".join(map(str, new[:_NAMED])) + ("; …" if len(new) > _NAMED else "")
        self._reported = len(self.images)
        _logger.warning(
            "%s: left out %d of %d images that cannot be read: %s",
            self._path, len(self.images), total, named,
        )  # fmt: skip
