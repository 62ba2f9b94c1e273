"""Write the README's generated tables anew: Table 1 from the methods, the model names, the recipes.

python docs/tables.py            # rewrites README.md between its markers
python docs/tables.py --check    # exits with 1 if that would change anything
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from vissl_zoo.methods import table
from vissl_zoo.models import METHODS, entrypoints
from vissl_zoo.recipes import RECIPES

README = Path(__file__).parents[1] / "README.md"


def models() -> str:
    """One row a method, one column a backbone."""
    names = entrypoints()
    backbones = sorted({n.removeprefix(f"{m}_") for m in METHODS for n in names if n.startswith(f"{m}_")})
    backbones = [b for b in backbones if all(f"{m}_{b}" in names for m in METHODS)]
    lines = ["| on | " + " | ".join(METHODS) + " |", "|---|" + "---|" * len(METHODS)]
    for backbone in backbones:
        lines.append(f"| {backbone} | " + " | ".join(f"`{m}_{backbone}`" for m in METHODS) + " |")
    return "\n".join([*lines, "| any timm backbone | " + " | ".join(f"`{m}`" for m in METHODS) + " |"])


def recipes() -> str:
    """One row a recipe."""
    rows = [f"| `{r.name}` | {r.about} | {r.expected} |" for r in RECIPES.values()]
    return "\n".join(["| recipe | what it is | expected |", "|---|---|---|", *rows])


def renewed(text: str) -> str:
    """The README with its tables made anew."""
    for name, content in {"table 1": table(), "models": models(), "recipes": recipes()}.items():
        start, stop = f"<!-- {name} -->", f"<!-- /{name} -->"
        text = re.sub(
            f"{start}.*?{stop}", lambda _, c=content, a=start, b=stop: f"{a}\n{c}\n{b}", text, flags=re.S
        )
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if the README is behind"
    )
    check = parser.parse_args().check
    before = README.read_text()
    after = renewed(before)
    if check:
        sys.exit(int(before != after))
    README.write_text(after)
