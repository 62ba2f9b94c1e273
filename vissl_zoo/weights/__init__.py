"""The weights that the package ships, in float16, and the table that says what each of them is.

`weights.json` maps "NAME.TAG" to a row, and `python experiments/ship.py` writes both. A name's first tag in the
table is its default. A checkout has all files; the wheel packs those that pyproject.toml names.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vissl_zoo.output import write_text

FOLDER = Path(__file__).parent
TABLE = "weights.json"


@dataclass(frozen=True)
class ShippedWeights:
    """One row of the table.

    Attributes:
        name: registered name and tag, "vi_simsiam_resnet18.cifar10".
        file: name of the safetensors file, in the folder of the table.
        sha256: of that file, in hexadecimal.
        pretrained_cfg: timm's entries about the images: input_size (C, H, W), crop_pct, interpolation, mean, std.
        model_args: arguments that rebuild the model: latent_dim, kappa_map and whatever else is not the default.
        description: one line.
        card: what the model card tells beside that: method, data, command, measured figures.
    """

    name: str
    file: str
    sha256: str
    pretrained_cfg: dict[str, Any]
    model_args: dict[str, Any]
    description: str = ""
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file."""
        return FOLDER / self.file

    def verify(self) -> None:
        """Compare the file with the table.

        Raises:
            RuntimeError: the file is absent or not the one that was shipped.
        """
        if not self.path.is_file():
            raise RuntimeError(
                f"{self.name} needs {self.path}, which is not there: the wheel leaves it out, and a checkout of the "
                "repository has it"
            )
        found = sha256_of(self.path)
        if found != self.sha256:
            raise RuntimeError(
                f"{self.path} is not the file that was shipped: its sha256 is {found[:16]}…, that of "
                f"{self.name} {self.sha256[:16]}…; reinstall vissl_zoo"
            )


def shipped() -> dict[str, ShippedWeights]:
    """The table by name and tag, in its order; empty where nothing is shipped."""
    path = FOLDER / TABLE
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: ShippedWeights(name, **row) for name, row in rows.items()}


def write_table(rows: dict[str, ShippedWeights]) -> None:
    """Replace the table, whole.

    Raises:
        UserError: it cannot be written.
    """
    names = ("file", "sha256", "pretrained_cfg", "model_args", "description", "card")
    plain = {name: {key: getattr(row, key) for key in names} for name, row in rows.items()}
    write_text(FOLDER / TABLE, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
