"""A million embeddings: what `dedup`, `select` and `report` take of time and memory, and what the index finds.

    python benchmarks/million.py                 # 1,000,000 × 512 in float16, made here; some 20 minutes of two cores
    python benchmarks/million.py --images 100000

Images lie in clusters whose sizes differ by a factor of a hundred. A tenth repeat another: at cosines from .93 to 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from vissl_zoo.photos.score_table import percentile, write_scores

DIM, CLUSTERS, PART = 512, 5_000, 50_000


def embeddings(file: Path, count: int, seed: int = 0) -> None:
    """Write (count, DIM) float16: part after part, so that little of it is held."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    share = rng.pareto(1.0, CLUSTERS) + 0.05
    array = np.lib.format.open_memmap(file, "w+", np.float16, (count, DIM))
    for start in range(0, count, PART):
        rows = min(PART, count - start)
        part = centres[rng.choice(CLUSTERS, rows, p=share / share.sum())]
        part += 0.9 * rng.standard_normal((rows, DIM), dtype=np.float32)
        if start:
            repeats = rng.permutation(rows)[: rows // 10]
            earlier = array[np.sort(rng.choice(start, len(repeats), replace=False))].astype(np.float32)
            # Noise of this length, relative to an embedding's, turns it by a cosine of .93 at most.
            length = rng.uniform(0, 0.395, (len(repeats), 1)).astype(np.float32) * 1.345
            part[repeats] = earlier + length * rng.standard_normal(earlier.shape, dtype=np.float32)
        array[start : start + rows] = part
    array.flush()


def scores(file: Path, count: int, folder: Path, seed: int = 0) -> None:
    """Write the table of images that are not there: pages show their names."""
    rng = np.random.default_rng(seed)
    uncertainty = rng.uniform(0, 1, count).astype(np.float32)
    table = pd.DataFrame({
        "path": [f"photos/{i:07}.jpg" for i in range(count)],
        "kappa": 511 / uncertainty - 511, "uncertainty": uncertainty, "percentile": percentile(pd.Series(uncertainty)),
        "width": pd.Series(rng.integers(200, 4000, count), dtype="Int64"),
        "height": pd.Series(rng.integers(200, 4000, count), dtype="Int64"),
        "issue": "", "content_hash": [f"{i:016x}" for i in range(count)], "error": None,
        "model": "made up", "model_hash": "0" * 12,
    })  # fmt: skip
    write_scores(file, table, {"folder": str(folder), "images": count})


def measured(*arguments: object) -> tuple[float, float]:
    """Seconds and GB of memory at most of `vissl-zoo ARGUMENTS`, which must succeed."""
    began = time.monotonic()
    code = "from vissl_zoo.commands import main; raise SystemExit(main())"
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", code, *map(str, arguments)])
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"vissl-zoo {' '.join(map(str, arguments))} failed")
    return time.monotonic() - began, used.ru_maxrss / 1e6


def main() -> None:
    """Make the embeddings, run the commands, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", help="commands to run, by the first word of their line")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table, points = folder / "scores.parquet", folder / "e.npy"
        scores(table, flags.images, folder)
        embeddings(points, flags.images)
        given = (table, "--embeddings", points)
        commands = {
            "dedup": ("dedup", *given, "--threshold", "0.95", "--output", folder / "unique.parquet"),
            "typical": ("select", *given, "-k", "1000", "--output", folder / "typical.parquet"),
            "diverse": (
                "select",
                *given,
                "-k",
                "1000",
                "--order",
                "diverse",
                "--output",
                folder / "d.parquet",
            ),
            "report": ("report", *given, "--output", folder / "report.html"),
        }
        lines = []
        for name, command in commands.items():
            if not flags.only or name in flags.only:
                seconds, memory = measured(*command)
                lines.append(f"{name:8} {seconds:6.0f} s {memory:6.1f} GB")
                print(lines[-1], flush=True)
        if (folder / "report.html").exists():
            print(f"report.html has {(folder / 'report.html').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
