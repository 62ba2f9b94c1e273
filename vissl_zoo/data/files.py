"""Which files a local path stands for, and which split each of them belongs to."""

import glob
import logging
import os
import re
from dataclasses import dataclass
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

# What a file or folder of a split may be called -> the split (Hugging Face's names, and two more).
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("unlabeled", "unlabelled"), "unlabeled"),
}


@dataclass(frozen=True)
class LocalFiles:
    """The data files under `root`, all of one kind: `splits` maps a split's name to its files, sorted."""

    root: Path
    kind: str  # "images", "parquet", or "imagefolder": images described by a metadata file
    splits: dict[str, list[Path]]
    in_split_folders: bool = False  # of images: root/train/..., root/val/...

    def class_folder(self, file: Path) -> str | None:
        """The name of the folder right under the split's own that holds an image file; None at its top."""
        folders = file.relative_to(self.root).parts[self.in_split_folders : -1]
        return as_text(folders[0]) if folders else None


def find_local_files(path: str) -> LocalFiles | None:
    """The image or parquet files that `path` (a file, folder or glob) stands for; None when nothing is there.

    A single file is the split "train". In a folder or glob, parquet files are split by name: train.parquet,
    test-00000-of-00002.parquet, val/0.parquet. Images are split by their top folder, if every image lies in a folder
    with a split's name. Images win over parquet files beside them, which may be results written there. Hidden files
    are left out, links are followed.
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
    if images:
        described = target.is_dir() and any(f.name in METADATA_NAMES for f in files)
        splits = _split_images(root, images)
        kind = "imagefolder" if described else "images"
        return LocalFiles(root, kind, _in_order(splits or {"train": images}), in_split_folders=bool(splits))
    tables = [f for f in files if f.suffix.lower() in (".parquet", ".pq")]
    if tables:
        if target.is_dir():  # a glob may choose a part on purpose
            _require_all_shards(tables)
        splits = {"train": tables} if target.is_file() else _split_tables(root, tables)
        return LocalFiles(root, "parquet", _in_order(splits))
    what = "not an image or a parquet file" if target.is_file() else "no image and no parquet file in it"
    raise UserError(f"{path}: {what}")


def as_text(path: str | os.PathLike) -> str:
    """A path as UTF-8, which Arrow asks for: a name of other bytes is escaped, and its image fails when it is read."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: Path) -> list[Path]:
    found, visited = [], set()

    def warn(error: OSError) -> None:
        _logger.warning("%s: left out, since it may not be entered (%s)", error.filename, error.strerror)

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=warn):
        real = os.path.realpath(parent)
        if real in visited:  # a link back up the tree
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _in_order(splits: dict[str, list[Path]]) -> dict[str, list[Path]]:
    usual = list(dict.fromkeys(SPLIT_NAMES.values()))
    return {
        name: splits[name]
        for name in sorted(splits, key=lambda n: (n not in usual, (usual + [n]).index(n), n))
    }


def _split_images(root: Path, images: list[Path]) -> dict[str, list[Path]]:
    """By top folder, if all of them are named so, else {}: among class folders, "train" is a vehicle."""
    splits: dict[str, list[Path]] = {}
    for image in images:
        *folders, _ = image.relative_to(root).parts
        split = SPLIT_NAMES.get(folders[0].lower()) if folders else None
        if split is None:
            return {}
        splits.setdefault(split, []).append(image)
    return splits


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
