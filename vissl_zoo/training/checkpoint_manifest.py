"""What makes a folder of files last: sha256 sums in manifest.json, forced onto the disk before it gets its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write manifest.json of the files in a folder, and force all of them and the folder onto the disk."""
    sums = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"sha256": sums}, indent=1) + "\n")
    for file in folder.iterdir():
        force_to_disk(file)
    force_to_disk(folder)


def fault(folder: Path) -> str | None:
    """What is wrong with a sealed folder, in a few words; None if every file is as it was written."""
    try:
        sums = json.loads((folder / MANIFEST).read_text())["sha256"]
        for name, expected in sums.items():
            if _sha256(folder / name) != expected:
                return f"{name} differs from its sha256"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or MANIFEST).name} cannot be read: {error.strerror}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def force_to_disk(path: Path) -> None:
    """fsync of a file, or of a folder where the file system knows that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder; killed within, it leaves a hidden name and not half a folder under its own."""
    with contextlib.suppress(OSError):
        hidden = folder.rename(folder.with_name(f".removed_{folder.name}"))
        shutil.rmtree(hidden, ignore_errors=True)


def _sha256(file: Path) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
