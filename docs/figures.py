"""Write every figure, table and picture of the demo that the documentation shows, from finished runs.

    accelerate launch train.py                                                 # runs/demo
    accelerate launch train.py --seed 1 --output-dir runs/demo-seed1           # and so on, to seed 4
    accelerate launch train.py --method.variant beta --output-dir runs/beta
    vissl-zoo score shapes --split test --model runs/demo --output scores.parquet --gallery page.html
    python docs/figures.py runs/demo runs/demo-seed* runs/beta --page page.html

The first run is the one that is shown. Runs that differ from it in the seed alone give the range over the seeds.
Runs of its seed with other flags give the table of variants. The script writes docs/demo.json, copies the pictures
of the first run's report, draws its gallery, takes a picture of the page by chromium, and renews the tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from vissl_zoo.data import open_images
from vissl_zoo.evaluation import figures
from vissl_zoo.output import short_number

DOCS = Path(__file__).parent
PICTURES = {  # of the first run's report, and their names here
    "uncertainty_knn_roc.png": "roc.png",
    "uncertainty_knn_kappa.png": "kappa.png",
}
KEPT = ("knn", "untrained", "ambiguity", "seconds")  # of a report's metrics.json, beside the AUROC
NO_FLAG = (
    "seed",
    "output_dir",
    "images",
    "resume",
    "overwrite",
    "threads",
    "report",
    "save_every",
    "log_every",
)


def read(path: Path) -> dict[str, Any]:
    """A JSON file.

    Raises:
        SystemExit: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"figures.py: {path}: {error}")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by the names of their flags, without `--`."""
    found = {}
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", "-")
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def flags(recipe: dict[str, Any], shown: dict[str, Any]) -> str:
    """The flags that make `recipe` out of the recipe `shown`."""
    before, now = flat(shown), flat(recipe)
    words = []
    for name, value in now.items():
        if name.replace("-", "_") in NO_FLAG or before.get(name) == value:
            continue
        *path, last = name.split(".")
        if isinstance(value, bool):
            words.append("--" + ".".join([*path, last if value else f"no-{last}"]))
        else:
            value = " ".join(map(str, value)) if isinstance(value, list) else value
            words.append(f"--{name} {value}")
    return " ".join(words)


def rounded(value: Any) -> Any:
    """Numbers to four places, which is more than any page shows."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def gallery(run: Path, target: Path, count: int = 16) -> None:
    """The test images of highest and lowest κ, with κ and the known ambiguity a under each."""
    scores = pd.read_parquet(run / "report" / "predictions.parquet").sort_values("kappa", kind="stable")
    table = open_images(read(run / "recipe.json")["data"]["path"], split="test")
    blocks = [
        [
            (table.read(one.row), f"κ {short_number(one.kappa)}, a {one.ambiguity:.2f}")
            for one in part.itertuples()
        ]
        for part in (scores[::-1][:count], scores[:count])
    ]
    titles = ("most certain: highest κ", "least certain: lowest κ")
    figures.gallery(*blocks, titles).savefig(target, dpi=110)
    print(target)


def picture(page: Path, target: Path) -> None:
    """The top of an HTML page as a PNG file."""
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1440"]
    subprocess.run(
        [*command, f"--screenshot={target}", page.resolve().as_uri()], check=True, stderr=subprocess.DEVNULL
    )
    print(target)


def main() -> None:
    """Read the runs, write docs/demo.json and the pictures, and renew the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of the demo; the first one is shown")
    parser.add_argument("--page", type=Path, help="what `score --gallery` wrote; needs chromium")
    parser.add_argument("--machine", help="where they ran, such as 'two cores without AVX-512'")
    arguments = parser.parse_args()
    shown, *_ = recipes = [read(run / "recipe.json") for run in arguments.runs]
    runs = []
    for run, recipe in zip(arguments.runs, recipes, strict=True):
        metrics = read(run / "report" / "metrics.json")
        kept = {key: metrics[key] for key in KEPT}
        kept["uncertainty"] = {"knn": {"auroc": metrics["uncertainty"]["knn"]["auroc"]}}
        runs.append({"seed": recipe["seed"], "flags": flags(recipe, shown), "metrics": kept})
    found = {"machine": arguments.machine, "runs": runs}
    text = json.dumps(rounded(found), indent=1, ensure_ascii=False)
    (DOCS / "demo.json").write_text(text + "\n", encoding="utf-8")
    print(DOCS / "demo.json")
    for name, here in PICTURES.items():
        shutil.copyfile(arguments.runs[0] / "report" / name, DOCS / here)
        print(DOCS / here)
    gallery(arguments.runs[0], DOCS / "gallery.png")
    if arguments.page:
        picture(arguments.page, DOCS / "photos.png")
    sys.exit(subprocess.run([sys.executable, str(DOCS / "tables.py")], check=False).returncode)


if __name__ == "__main__":
    main()
