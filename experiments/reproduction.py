"""The paper's tables beside ours: docs/reproduction.md, from what `vissl-zoo evaluate` measured.

    vissl-zoo evaluate NAME.TAG --data.path cifar10/ --output-dir FOLDER/NAME.TAG …    # the page has the whole commands
    python experiments/reproduction.py FOLDER             # docs/reproduction.json; then python docs/tables.py

FOLDER holds the evaluations of `MODELS` under their names, several of one model as NAME.TAG and NAME.TAG-2, …, and
`compare`, the folder of `vissl-zoo compare`. What is not there is a dash in the tables.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vissl_zoo.errors import UserError
from vissl_zoo.output import write_text

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODELS = ("vi_simsiam_resnet18.cifar10", "vi_simsiam_resnet18.cifar10_paper", "dino_resnet18.cifar10")
KEPT = (
    "knn",
    "linear",
    "uncertainty",
    "retrieval",
    "augmentation",
    "test_time",
    "transfer",
    "semi_supervised",
)


def collect(folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of each model, of all its evaluations, and those of the comparison.

    Raises:
        UserError: there is no evaluation of any of the models.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in MODELS:
        for path in sorted(folder.glob(f"{name}*/metrics.json")):
            if path.parent.name.removeprefix(name).partition("-")[0] == "":
                metrics = json.loads(path.read_text(encoding="utf-8"))
                found.setdefault(name, {}).update({key: metrics[key] for key in KEPT if key in metrics})
    if not found:
        raise UserError(f"{folder} holds no evaluation of {', '.join(MODELS)}")
    compared = folder / "compare" / "compare.json"
    if compared.exists():
        found["compare"] = json.loads(compared.read_text(encoding="utf-8"))
    return found


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code, which is 2 after one line about bad input."""
    try:
        if len(arguments) != 1:
            raise UserError("one argument: the folder of the evaluations")
        write_text(DOCS / "reproduction.json", json.dumps(collect(Path(arguments[0])), indent=1) + "\n")
    except UserError as error:
        print(f"experiments/reproduction.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
