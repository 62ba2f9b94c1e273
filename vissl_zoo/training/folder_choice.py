"""Which folder a run goes to: its own, which no other process works in and which holds no earlier run unasked."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from vissl_zoo.errors import UserError
from vissl_zoo.file_lock import Locked, release_lock, take_lock
from vissl_zoo.recipes import Recipe

PARTS = ("recipe.json", "metrics.jsonl", "checkpoints", "export", "report")  # what a run leaves
LOCK = ".lock"


def claim_folder(recipe: Recipe) -> tuple[Path, bool]:
    """Choose, make and lock the folder of a run; also returns whether the run that is in it goes on.

    Raises:
        UserError: another process works there, the folder holds an earlier run and no flag says what is to become
            of it, there is none to resume, or the folder cannot be written.
    """
    if recipe.resume != "off":
        earlier = newest_run(recipe)
        if earlier is None and recipe.resume == "on":
            where = recipe.output_dir or f"{_default(recipe)}*"
            raise UserError(f"--resume: there is no checkpoint in {where}")
        if earlier is not None and (recipe.resume == "on" or any(earlier.glob("checkpoints/step_*"))):
            _take(earlier)
            return earlier, True
        if earlier is not None and not (earlier / "export").exists():  # it ended before it first saved
            _take(earlier)
            return earlier, False
    if recipe.output_dir is None and not recipe.overwrite:
        return _next_free(recipe), False
    folder = Path(recipe.output_dir or _default(recipe))
    _take(folder)
    if holds_run(folder) and not recipe.overwrite:
        release_lock(folder / LOCK)
        raise UserError(
            f"{folder} holds an earlier run: --resume goes on with it, --overwrite removes it, and another "
            "--output-dir leaves it alone"
        )
    return folder, False


def newest_run(recipe: Recipe) -> Path | None:
    """The run that --resume goes on with: in --output-dir, else the one begun last among runs/NAME, runs/NAME-2, …"""
    if recipe.output_dir is not None:
        folder = Path(recipe.output_dir)
        return folder if holds_run(folder) else None
    default = _default(recipe)
    name = re.compile(re.escape(default.name) + r"(-\d+)?")
    runs = [file for file in default.parent.glob("*/recipe.json") if name.fullmatch(file.parent.name)]
    return max(runs, key=lambda file: file.stat().st_mtime_ns).parent if runs else None


def holds_run(folder: Path) -> bool:
    """Whether there is anything in a folder that a new run would remove."""
    return any((folder / part).exists() for part in PARTS)


def _default(recipe: Recipe) -> Path:
    return Path("runs") / (recipe.name or recipe.model)


def _next_free(recipe: Recipe) -> Path:
    default = _default(recipe)
    for number in itertools.count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        if holds_run(folder):
            continue
        try:
            _take(folder)
        except Locked:
            continue
        if not holds_run(folder):  # nor did one begin and end meanwhile
            return folder
        release_lock(folder / LOCK)
    raise AssertionError


def _take(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        take_lock(folder / LOCK, str(folder))
    except OSError as error:
        raise UserError(f"--output-dir {folder} cannot be written: {error.strerror}") from error
