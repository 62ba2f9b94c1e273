"""What a model card must know and the weights do not say: written into the card's metadata, and read back from it.

The front matter of an export's README.md so carries the method, the data and the command from the training to
`vissl-zoo publish`, without a file of its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from vissl_zoo.errors import UserError
from vissl_zoo.models import entrypoints


@dataclass(frozen=True)
class Record:
    """How a model came to be. None is unknown, and left out of the card.

    Attributes:
        method: as papers write it.
        data: name or path of the images.
        image_size: side of the training images in pixels.
        command: the command line that made it.
        note: a sentence that stands beside every figure, such as how the images were compressed.
    """

    method: str
    data: str | None = None
    image_size: int | None = None
    command: str | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is known, as plain values."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """Read `to_dict`'s result; keys of later versions are ignored."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def read_record(export: Path, architecture: str) -> Record:
    """The record in an export's model card; where there is none, the method's name alone."""
    readme = export / "README.md"
    if readme.is_file():
        kept = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get(
            "vissl_zoo"
        )
        if isinstance(kept, dict) and kept.get("method"):
            return Record.from_dict(kept)
    return Record(method=architecture)


def find_export(folder: str | Path) -> Path:
    """The export folder in a run folder, or the folder itself if it is one.

    Raises:
        UserError: there is no export in it.
    """
    for candidate in (Path(folder) / "export", Path(folder)):
        if (candidate / "config.json").is_file() and (candidate / "model.safetensors").is_file():
            return candidate
    raise UserError(
        f"{folder} holds no export: there is no config.json with a model.safetensors in it or in "
        f"{Path(folder) / 'export'}"
    )


def read_config(export: Path) -> dict[str, Any]:
    """The config.json of an export of a model of the zoo.

    Raises:
        UserError: it is unreadable, or that of another model, such as the plain face of a published folder.
    """
    config = read_json(export / "config.json", "the export's")
    name = config.get("architecture")
    if not isinstance(name, str) or name not in entrypoints():
        whole = export / "full"
        hint = f"; the whole model is in {whole}" if (whole / "config.json").is_file() else ""
        raise UserError(f"{export / 'config.json'} names {name}, which is no model of the zoo{hint}")
    return config


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it is absent or no JSON object; the line begins with `what`.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{what} {path} is no JSON object")
    return found


def read_evaluation(folder: str | Path) -> dict[str, Any]:
    """The metrics.json that `vissl-zoo evaluate` left in `folder`.

    Raises:
        UserError: there is none.
    """
    path = Path(folder)
    path = path / "metrics.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"--evaluation {folder} holds no metrics.json: make it with `vissl-zoo evaluate`")
    found = read_json(path, "--evaluation")
    if "data" not in found or not {"knn", "linear", "uncertainty", "retrieval"} & found.keys():
        raise UserError(f"--evaluation {path} is not of `vissl-zoo evaluate`: it has no data or no protocol")
    return found
