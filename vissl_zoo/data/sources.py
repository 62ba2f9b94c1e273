"""What a data path names: the embedded data, local files, or a Hugging Face Hub data set, split by split."""

import contextlib
import glob
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, cast

import datasets
import fsspec
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetsError

from vissl_zoo.data import columns
from vissl_zoo.data.decode import BadImage, why_unreadable
from vissl_zoo.data.described import describe_images
from vissl_zoo.data.files import SPLIT_NAMES, LocalFiles, as_path, as_text, find_local_files, say_once
from vissl_zoo.data.object_store import StoredFiles, find_stored_files, is_url
from vissl_zoo.errors import UserError

_logger = logging.getLogger(__name__)
_RESHARD = 64  # files up to which a stream is cut into their row groups: each is opened for that
_PEEKED, _PEEK = 16, 2**14  # files that a fingerprint looks into, and how many bytes of their ends
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """A data set that can be opened: the splits it has, and how to load and to identify one of them.

    Attributes:
        path: what was typed.
        splits: names of the splits.
        load: gives a split as a Dataset.
        fingerprint: of a split and its Dataset; it changes when the data change.
        root: the folder against which file names are shown.
        stream: as `load`, but it gives an IterableDataset; None where `load` finds the rows without reading them.
    """

    path: str
    splits: tuple[str, ...]
    load: Callable[[str], datasets.Dataset]
    fingerprint: Callable[[str, datasets.Dataset], str]
    root: Path | None = None
    stream: Callable[[str], datasets.IterableDataset] | None = None

    def find_split(self, name: str) -> str:
        """The split called `name` or a synonym of it ("val"); UserError lists the splits there are."""
        for candidate in (name, SPLIT_NAMES.get(name.lower())):
            if candidate in self.splits:
                return candidate
        raise UserError(f'{self.path}: no split "{name}"; it has {", ".join(self.splits)}')


def find_source(path: str) -> Source:
    """Resolve `path` as `open_images` documents it, reading no image; UserError when it names nothing."""
    if path == "shapes":
        return Source("shapes", ("train", "test"), _draw_shapes, _content_fingerprint)
    if is_url(path):
        return _stored(path, find_stored_files(path))
    local = find_local_files(path)
    if local is not None:
        return _local(path, local)
    if _HUB_ID.fullmatch(path):
        return _hub(path)
    raise UserError(f"{path}: neither a file nor a folder here, nor a Hub data set id (org/name)")


def read_value(how: Callable[..., Any], value: Any, root: Path | None, row: int, name: str) -> Any:
    """`how` applied to the bytes, or to the path, of an undecoded value of an image column.

    Raises:
        BadImage: whatever goes wrong; it has the `row`, and the file's name or else `name`.
    """
    try:
        return how(_encoded(value, root))
    # On damaged data Pillow raises OSError, SyntaxError, ValueError, struct.error, …: any Exception.
    except Exception as error:
        raise BadImage(row, shown_name(value, root) or name, why_unreadable(error)) from error


def shown_name(value: Any, root: Path | None) -> str | None:
    """How to show the path of an image: relative to the data set if it lies in it; None where it has none."""
    path = parts_of(value)[1]
    if path and path.startswith("data:"):
        return None
    if path and root is not None and Path(path).is_relative_to(root):
        return str(Path(path).relative_to(root))
    return path or None


def parts_of(value: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path that a value of an image column has: bytes, a path, {bytes, path}, or a list of one."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return (None, value) if isinstance(value, str) else (value, None)


def _encoded(value: Any, root: Path | None) -> bytes | Path:
    if isinstance(value, list) and len(value) > 1:
        raise ValueError(f"the row holds {len(value)} images, not one")
    content, path = parts_of(value)
    if content is not None:
        return content
    if not path:
        raise ValueError("the row holds no image")
    if path.startswith("data:") or "://" in path:  # an URL, or a file of an archive or of the Hub
        inner, chained, archive = path.rpartition("::")
        if chained and "://" not in archive:
            path = f"{inner}::{(root or Path()) / archive}"
        try:
            with fsspec.open(path, "rb") as file:
                return cast(IO[bytes], file).read()
        except FileNotFoundError as error:  # some file systems say the path alone
            raise ValueError("no such file") from error
    return as_path(os.path.join(root or "", path))


def open_rows(
    source: Source, split: str, image_column: str | None
) -> datasets.Dataset | datasets.IterableDataset:
    """The undecoded image column of a split, alone and as Arrow tables, streamed where the source can be."""
    try:
        known = rows = cast(Any, (source.stream or source.load)(split))
        if rows.features is None:  # some streams know their columns only when a row has been read
            known = datasets.Dataset.from_list(list(rows.take(1)))
        empty = not known.features
        if not empty:
            column = columns.image_column(known, source.path, image_column)
            rows = columns.undecoded(rows, column, known.features[column])
            rows = rows.select_columns([column]).with_format("arrow")
            empty = next(iter(rows.iter(1)), None) is None
        if not empty and hasattr(rows, "reshard") and rows.num_shards <= _RESHARD:
            rows = rows.reshard()
    except UserError:
        raise
    except Exception as error:  # whatever the network, the Hub or a damaged file comes up with
        raise UserError(f"{source.path}: cannot be read ({why_unreadable(error)})") from error
    if empty:
        raise UserError(f'{source.path}: the split "{split}" is empty')
    return rows


@cache
def _draw_shapes(split: str) -> datasets.Dataset:
    from vissl_zoo.data.shapes import shapes

    return shapes(split)


def _local(path: str, files: LocalFiles) -> Source:
    for line in files.notes:
        say_once(line)
    load = partial(
        {"images": _load_images, "parquet": _load_parquet}.get(files.kind, _load_tars), path, files
    )
    stream = None if files.kind == "images" else partial(load, streaming=True)
    root = files.root
    if files.kind != "images":  # paths in them are relative to them, where all lie in one folder
        parents = {file.parent for group in files.splits.values() for file in group}
        root = parents.pop() if len(parents) == 1 else root
    return Source(path, tuple(files.splits), load, partial(_file_fingerprint, files), root, stream)


def _stored(path: str, stored: StoredFiles) -> Source:
    """All are of the split "train". Parquet files and tars are fetched into the cache of `datasets`."""
    load = partial(_load_stored, path, stored)
    stream = None if stored.kind == "images" else partial(load, streaming=True)
    return Source(path, ("train",), load, partial(_stored_fingerprint, stored), stream=stream)


def _load_stored(path: str, stored: StoredFiles, split: str, **options: Any) -> Any:
    if stored.kind != "images":
        return _load_with_datasets(path, stored.kind, {split: list(stored.files)}, split, **options)
    rows = {"image": [{"path": url, "bytes": None} for url in stored.files]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(image=datasets.Image(decode=False)))


def _stored_fingerprint(stored: StoredFiles, split: str, dataset: datasets.Dataset) -> str:
    return hashlib.sha256(repr(sorted(stored.files.items())).encode()).hexdigest()[:16]


def _load_images(path: str, files: LocalFiles, split: str) -> datasets.Dataset:
    """One row a file, with what metadata files say of it.

    Labels are class folders, if every image of the split is in one, there are several, and no metadata has labels.

    Not by `datasets`' own imagefolder: that takes 18 s per 100,000 files where this takes 2, and it makes
    splits of file names, so that train_station.jpg alone would be the training set.
    """
    # The classes of all splits together, so that a class missing from one does not shift its numbers.
    named = {files.class_folder(file) for group in files.splits.values() for file in group}
    classes = sorted(name for name in named if name is not None)
    folders = [files.class_folder(file) for file in files.splits[split]]
    columns: dict[str, list] = {
        "image": [{"path": as_text(file), "bytes": None} for file in files.splits[split]]
    }
    features = datasets.Features(image=datasets.Image(decode=False))
    if None not in folders and len(classes) > 1:
        features["label"] = datasets.ClassLabel(names=classes)
        columns["label"] = folders
    dataset = datasets.Dataset.from_dict(columns, features=features)
    return describe_images(path, dataset, files, split) if files.metadata else dataset


def _load_parquet(path: str, files: LocalFiles, split: str, **options: Any) -> Any:
    rows = 0
    for file in files.splits[split]:
        try:
            rows += pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}: not a readable parquet file ({why_unreadable(error)})") from error
    if not rows:
        raise UserError(f'{path}: the split "{split}" is empty')
    return _load_with_datasets(path, "parquet", _patterns(files, split), split, **options)


def _load_tars(path: str, files: LocalFiles, split: str, **options: Any) -> Any:
    return _load_with_datasets(path, "webdataset", _patterns(files, split), split, **options)


def _patterns(files: LocalFiles, split: str) -> dict[str, list[str]]:
    return {split: [glob.escape(str(file)) for file in files.splits[split]]}


def _load_with_datasets(path: str, builder: str, patterns: dict, split: str, **options: Any) -> Any:
    """A Dataset; with the option streaming=True an IterableDataset."""
    try:
        with _quiet():
            return datasets.load_dataset(builder, data_files=patterns, split=split, **options)
    except (DatasetsError, OSError, ValueError, pa.ArrowException) as error:
        # DatasetGenerationError says only that something happened.
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"{path}: cannot be read as a {builder} data set ({why_unreadable(cause)})"
        ) from error


def _hub(path: str) -> Source:
    """`org/name`, or `org/name:config` for a data set of several configurations."""
    repo, _, config = path.partition(":")
    arguments: Any = (repo, config) if config else (repo,)
    try:
        with _quiet():
            splits = tuple(datasets.get_dataset_split_names(*arguments))
    except Exception as error:  # whatever the Hub client, the network or a foreign data set comes up with
        unreachable = isinstance(error, ConnectionError) and not config
        if unreachable and (source := _hub_snapshot(path, repo)):
            return source
        raise _not_on_hub(path, error) from error

    def load(split: str, **options: Any) -> Any:
        try:
            with _quiet():
                return datasets.load_dataset(*arguments, split=split, **options)
        except Exception as error:
            raise _not_on_hub(path, error) from error

    return Source(path, splits, load, _hub_fingerprint, stream=partial(load, streaming=True))


def _hub_snapshot(path: str, repo: str) -> Source | None:
    """The repository's files in the local Hub cache, where `datasets` does not look when it is offline."""
    try:
        folder = huggingface_hub.snapshot_download(repo, repo_type="dataset", local_files_only=True)
        files = find_local_files(folder)
        if files is None:
            return None
        source = _local(path, files)
    except (OSError, ValueError, UserError):  # not there, or only a part that holds no data
        return None
    _logger.warning("%s: the Hub does not answer; using the files in its cache, %s", path, folder)
    return source


def _not_on_hub(path: str, error: Exception) -> UserError:
    offline = " (offline: HF_HUB_OFFLINE is set)" if huggingface_hub.constants.HF_HUB_OFFLINE else ""
    what = "neither a file nor a folder here, nor a Hub data set that could be loaded"
    return UserError(f"{path}: {what}{offline}: {why_unreadable(error)}")


def _file_fingerprint(files: LocalFiles, split: str, dataset: datasets.Dataset) -> str:
    """Of names, sizes and times, and of both ends of a few files.

    To read all of 100,000 photos would take as long as to score them; the few are for folders whose files
    agree in all else, as an archive unpacks them or a script writes them. A file that cannot be read counts by its
    name alone: its row says what is wrong when it is read.
    """
    digest = hashlib.sha256(f"{files.kind}/{split}".encode())
    group = files.splits[split]
    for file in (*group, *files.metadata):
        digest.update(os.fsencode(file.relative_to(files.root)))
        with contextlib.suppress(OSError):
            stat = file.stat()
            digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
        digest.update(b"\n")
    for file in group[:: -(-len(group) // _PEEKED)]:
        with contextlib.suppress(OSError), file.open("rb") as opened:
            digest.update(opened.read(_PEEK))
            opened.seek(max(opened.tell(), file.stat().st_size - _PEEK))
            digest.update(opened.read(_PEEK))
    return digest.hexdigest()[:16]


def _hub_fingerprint(split: str, dataset: datasets.Dataset) -> str:
    return dataset._fingerprint  # `datasets` derives it from the revision's files and the split


def _content_fingerprint(split: str, dataset: datasets.Dataset) -> str:
    content = cast(pa.Table, dataset.with_format("arrow")[:]).to_pydict()
    return hashlib.sha256(repr((split, content)).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without `datasets`' progress bars, leaving the caller's own setting as it was."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
