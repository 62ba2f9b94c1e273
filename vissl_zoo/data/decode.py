"""From the bytes of an image file, of any mode and depth, to an upright 8-bit RGB image; corrupt ones are counted."""

import contextlib
import hashlib
import importlib
import io
import logging
import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vissl_zoo.cpu.cores import usable_cores
from vissl_zoo.errors import UserError

_logger = logging.getLogger(__name__)
_NAMED = 5  # corrupt images, in a warning
# Asked for by name, whatever a file is called: left to itself Pillow starts Ghostscript on PostScript, and opens some
# thirty formats that nobody takes photos in. TGA comes last, since it has no mark by which a file could be told.
_RASTER_FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "SGI", "TGA",
)  # fmt: skip
_TIFF_MAX_SAMPLE_VALUE = 281


def default_workers() -> int:
    """Threads or processes that decode where nobody says how many: one for each CPU, 16 at most.

    A container or a job scheduler may lend this process fewer CPUs than there are; that is heeded.
    """
    return min(16, usable_cores())


class BadImage(UserError):
    """One image that cannot be read: its `row` in the table, its `name` and the `reason`, one line."""

    def __init__(self, row: int, name: str, reason: str):
        super().__init__(row, name, reason)  # the arguments themselves, so that it pickles between processes
        self.row, self.name, self.reason = row, name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


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


def open_image(path: str | os.PathLike) -> Image.Image:
    """Open an image file as this package does everywhere: upright 8-bit RGB, as `to_rgb` makes it.

    Raises:
        UserError: one line that names the file and says why it cannot be read.
    """
    try:
        return decode(path)[0]
    except Exception as error:  # on damaged data Pillow raises nearly anything
        raise UserError(f"{os.fspath(path)}: {why_unreadable(error)}") from error


def content_hash(source: bytes | str | os.PathLike) -> str:
    """Sixteen hex digits of the SHA-256 of an image file."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return hashlib.sha256(data).hexdigest()[:16]


def to_rgb(image: Image.Image) -> Image.Image:
    """Return `image` as a new upright 8-bit RGB image, with no metadata left.

    - The EXIF orientation is applied; applying `to_rgb` again changes nothing.
    - 16-bit grey is scaled, v·255/65535 rounded, where Pillow's own `convert` clips at 255. 12 bits in 16 are
      stretched by the MaxSampleValue that a TIFF declares, where it holds every value; without one they are taken as
      they are, and look dark. Grey of 32-bit integers or floats has no agreed range: floats up to 1 are [0, 1]; else
      the range is 255 (floats only), 65535, or the image's own maximum, the first that holds every value. Negative
      and non-finite values are black. The range never depends on the darkest value, so a dark image stays dark.
    - Transparency is composited over white, the page on which such images are drawn and shown. Dark line art would
      vanish over black. The colour stored under a fully transparent pixel is arbitrary and must not show.
    - CMYK is converted without its colour profile. Of an animation the current frame is taken, which for a
      newly opened file is the first.

    Raises whatever Pillow raises for damaged data (mostly OSError); a truncated file is damaged.
    """
    image.load()
    orientation = _orientation(image)  # after load(): Pillow turns TIFF upright itself while it loads
    if image.mode == "F" or image.mode[0] == "I":
        declared = getattr(image, "tag_v2", {}).get(_TIFF_MAX_SAMPLE_VALUE)
        declared = declared[0] if isinstance(declared, tuple) and declared else declared  # one a channel
        rgb = Image.fromarray(_scale_to_8_bits(np.asarray(image), declared)).convert("RGB")
    elif image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        rgb = canvas.convert("RGB")
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    # Pillow turns by this one tag and removes it. To write the camera's other tags anew may fail, if they are damaged.
    rgb.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def decode(
    source: bytes | str | os.PathLike, shape: tuple[int, int] | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a file's bytes, or the file at a path, to (RGB image, original upright (height, width)).

    `shape` is the (height, width) wanted in the end. A JPEG much larger is decoded at 1/2, 1/4 or 1/8 of its size,
    never to less than twice `shape`, as `Image.thumbnail` does. The image returned is then smaller than the size
    returned. Raises whatever Pillow raises, `Image.DecompressionBombError` included.
    """
    with _open(source) as image:
        size = None
        if shape is not None and image.format in ("JPEG", "MPO"):
            height, width = size = _upright_size(image)
            turned = (width, height) != image.size
            wanted = shape if turned else shape[::-1]  # (width, height) as stored in the file
            image.draft(None, (2 * wanted[0], 2 * wanted[1]))
        rgb = to_rgb(image)
    return rgb, size or (rgb.height, rgb.width)


def encoded_size(source: bytes | str | os.PathLike) -> tuple[int, int]:
    """The upright (height, width) in pixels of an encoded image, from its header alone where that is safe."""
    with _open(source) as image:
        if image.format != "TIFF":
            return _upright_size(image)
    # Whether Pillow reports a TIFF's size before or after turning it differs between its releases.
    return decode(source)[1]


def why_unreadable(error: Exception) -> str:
    """One line on why an image or a data set could not be read."""
    if isinstance(error, UnidentifiedImageError):  # Pillow's text names a BytesIO object's address
        return "not an image that Pillow can read"
    if isinstance(error, FileNotFoundError) and error.errno:
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image"
    text = " ".join(str(error).split()).rstrip(".:") or type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def _open(source: bytes | str | os.PathLike) -> Image.Image:
    _register_formats()
    formats = [name for name in _RASTER_FORMATS if name in Image.OPEN]
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)


@cache
def _register_formats() -> None:
    Image.init()
    with contextlib.suppress(ImportError):  # not required: who has phone photos installs it
        importlib.import_module("pillow_heif").register_heif_opener()


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels: keep the image as stored
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)


def _scale_to_8_bits(grey: np.ndarray, declared: object = None) -> np.ndarray:
    """Grey values (H, W), integer or float -> uint8 (H, W); the ranges are those of `to_rgb`."""
    is_float = grey.dtype.kind == "f"
    values = np.where(np.isfinite(grey), grey, 0).clip(0).astype(np.float64)
    ceilings = (1.0, 255.0, 65535.0) if is_float else (65535.0,)
    highest = values.max(initial=0.0)
    if isinstance(declared, int) and declared > 0 and not is_float:
        ceilings = (float(declared), *ceilings)
    ceiling = next((c for c in ceilings if highest <= c), highest)
    return np.rint(values * (255.0 / ceiling)).astype(np.uint8)
