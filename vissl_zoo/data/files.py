"""Which files a local path stands for, and which split each of them belongs to."""

import glob
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vissl_zoo.errors import UserError

# Listed, not asked of Pillow: its registry holds formats that only save (.pdf) or run a program (.eps).
# Phone formats are here although Pillow may lack them: such a photo is then reported, not passed over.
# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe",
    ".jpeg", ".jpg", ".jpx", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".sgi", ".tga", ".tif", ".tiff", ".webp",
))
# fmt: on
_logger = logging.getLogger(__name__)
METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
# What this package's own folders of results hold: runs, evaluations and comparisons. Their figures are no photos.
_RESULTS = ({"recipe.json", "metrics.jsonl"}, {"metrics.json", "index.html"}, {"compare.json", "compare.png"})

# What a file or folder of a split may be called -> the split (Hugging Face's names, and two more).
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabeled"),
}


@dataclass(frozen=True)
class LocalFiles:
    """The data files under `root`, all of one kind.

    Attributes:
        root: the folder against which file names are shown.
        kind: "images", "parquet" or "webdataset", which are tars.
        splits: a split's name -> its files, sorted.
        in_split_folders: of images: they lie in root/train/..., root/val/...
        outside: images that lie in none of the splits.
        metadata: files that say more of the images, by their names.
        notes: a line on each thing that was left out.
    """

    root: Path
    kind: str
    splits: dict[str, list[Path]]
    in_split_folders: bool = False
    outside: tuple[Path, ...] = ()
    metadata: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def class_folder(self, file: Path) -> str | None:
        """The name of the folder right under the split's own that holds an image file; None at its top."""
        folders = file.relative_to(self.root).parts[self.in_split_folders : -1]
        return as_text(folders[0]) if folders else None


def find_local_files(path: str) -> LocalFiles | None:
    """The image or parquet files that `path` (a file, folder or glob) stands for; None when nothing is there.

    - A single file is the split "train".
    - Parquet files are split by name: train.parquet, test-00000-of-00002.parquet, val/0.parquet.
    - Images are split by their top folder, where every folder has a split's name, or train and another are among them.
    - Parquet files that hold images win over image files beside them. Others are left out, as the results that
      `vissl-zoo` writes are; so are its folders of results.
    - Tars, as webdataset writes them, count where there is neither.
    - Hidden files are left out, links are followed.

    Raises UserError where there are files but none of a kind that can be read.
    """
    # Not resolved: a link's own name is the one to show.
    target = Path(os.path.abspath(os.path.expanduser(path)))
    if target.is_file():
        root, files = target.parent, [target]
    elif target.is_dir():
        root, files = target, _walk(target)
    elif glob.has_magic(path):
        files = sorted(Path(f) for f in glob.glob(str(target), recursive=True) if os.path.isfile(f))
        root = Path(os.path.commonpath([f.parent for f in files])) if files else target
        if not files:
            raise UserError(f"{path}: no file matches")
    else:
        return None

    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
    tables = [f for f in files if f.suffix.lower() in (".parquet", ".pq")]
    notes: tuple[str, ...] = ()
    if len(tables) > 1 or (tables and images):
        holding = [f for f in tables if _holds_images(f, alone=not images)]
        if holding and len(holding) < len(tables):
            notes += (_left_out(path, root, set(tables) - set(holding), "hold no images"),)
        tables = holding if holding or images else tables
    if tables:
        if images:
            notes += (_left_out(path, root, images, "lie beside parquet files that hold images"),)
        if target.is_dir():  # a glob may choose a part on purpose
            _require_all_shards(tables)
        splits = {"train": tables} if target.is_file() else _split_tables(root, tables)
        return LocalFiles(root, "parquet", _in_order(splits), notes=notes)
    if images:
        splits, outside = _split_images(root, images)
        if outside:
            notes += (_left_out(path, root, outside, f"lie outside of {', '.join(_in_order(splits))}"),)
        metadata = tuple(f for f in files if f.name in METADATA_NAMES)
        found = _in_order(splits or {"train": images})
        return LocalFiles(root, "images", found, bool(splits), tuple(outside), metadata, notes)
    tars = [f for f in files if f.suffix.lower() == ".tar"]
    if tars:
        return LocalFiles(
            root, "webdataset", _in_order({"train": tars} if target.is_file() else _split_tables(root, tars))
        )
    what = "not an image or a parquet file" if target.is_file() else "no image and no parquet file in it"
    raise UserError(f"{path}: {what}")


@cache
def say_once(line: str) -> None:
    """Warn, unless it was said before: a path is looked into once for its splits, and again for each of them."""
    _logger.warning("%s", line)


def as_path(text: str) -> Path:
    """The file of a name that `as_text` gave."""
    raw = text.encode()
    if not os.path.lexists(raw):  # else a name that has a backslash of its own
        escaped = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), raw)
        raw = escaped if os.path.lexists(escaped) else raw
    return Path(os.fsdecode(raw))


def as_text(path: str | os.PathLike) -> str:
    """A path as UTF-8, which Arrow asks for; bytes that are none are escaped, and `as_path` finds the file again."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: Path) -> list[Path]:
    found, visited, results = [], set(), []

    def warn(error: OSError) -> None:
        _logger.warning("%s: left out, since it may not be entered (%s)", error.filename, error.strerror)

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=warn):
        real = os.path.realpath(parent)
        if real in visited:  # a link back up the tree
            folders.clear()
            continue
        visited.add(real)
        if Path(parent) != folder and any(own <= {*folders, *names} for own in _RESULTS):
            results.append(parent)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    if results:
        say_once(_left_out(folder, folder, results, "hold results of vissl_zoo", "folders"))
    return sorted(found)


def _left_out(path: str | Path, root: Path, left: Iterable[str | Path], why: str, what: str = "files") -> str:
    names = sorted(as_text(os.path.relpath(file, root)) for file in left)
    return f"{path}: left out {len(names):,} {what} that {why}, such as {names[0]}"


def _holds_images(table: Path, *, alone: bool) -> bool:
    """Whether a parquet file has a column of images. One that cannot be read has, where it is `alone`: to be named."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vissl_zoo.data.columns import image_columns

    try:
        return bool(image_columns(datasets.Features.from_arrow_schema(pq.read_schema(table))))
    except (OSError, ValueError, TypeError, pa.ArrowException):
        return alone


def _in_order(splits: dict[str, list[Path]]) -> dict[str, list[Path]]:
    usual = list(dict.fromkeys(SPLIT_NAMES.values()))
    return {
        name: splits[name]
        for name in sorted(splits, key=lambda n: (n not in usual, (usual + [n]).index(n), n))
    }


def _split_images(root: Path, images: list[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """By top folder, and what lies elsewhere; ({}, []) where they are no splits.

    Among class folders "train" is a vehicle, unless "test" or "validation" is there, too.
    """
    splits: dict[str, list[Path]] = {}
    outside, strangers = [], False
    for image in images:
        *folders, _ = image.relative_to(root).parts
        split = SPLIT_NAMES.get(folders[0].lower()) if folders else None
        strangers = strangers or (bool(folders) and split is None)
        (outside if split is None else splits.setdefault(split, [])).append(image)
    if strangers and not ("train" in splits and len(splits) > 1):
        return {}, []
    return (splits, outside) if splits else ({}, [])


def _split_tables(root: Path, tables: list[Path]) -> dict[str, list[Path]]:
    """By name; when some carry a split's name, each of the others is a split of its own, never mixed in."""
    splits: dict[str, list[Path]] = {}
    named = False
    for table in tables:
        own = re.split(r"[-_.]\d", table.stem)[0]  # "train" of train-00000-of-00004-1a2b
        folders = table.relative_to(root).parts[:-1]
        split = next(
            (SPLIT_NAMES[n.lower()] for n in (own, *folders[::-1]) if n.lower() in SPLIT_NAMES), None
        )
        named = named or split is not None
        splits.setdefault(split or own, []).append(table)
    return splits if named else {"train": tables}


def _require_all_shards(tables: list[Path]) -> None:
    """Of train-00000-of-00004.parquet there must be 4: a download cut short must not pass for the whole."""
    shards: dict[tuple[str, int], int] = {}
    for table in tables:
        if match := re.fullmatch(r"(.+)-\d+-of-(\d+)(-[0-9a-f]+)?", table.stem):
            key = str(table.parent / match[1]), int(match[2])
            shards[key] = shards.get(key, 0) + 1
    for (prefix, total), count in shards.items():
        if count < total:
            raise UserError(
                f"{prefix}: {count} of {total} parquet shards are there; the download is incomplete"
            )
