"""`vissl-zoo score` and `dedup` beside fastdup: from a folder of photos to embeddings and near-duplicates.

    python -m venv fastdup_env && fastdup_env/bin/pip install fastdup==2.54   # it pins Pillow, so it has its own
    python benchmarks/photos.py --fastdup-python fastdup_env/bin/python --data.path photos/

Whole processes are timed, imports included, in turns. fastdup has its own model. Ours is the photo model at 224 px,
without the fit of κ to the photos (`--no-fit`), which fastdup has no counterpart of; it writes the table of κ, too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from measure import Line, Report, Target, compare, say
from options import Options, main
from scoring import Data, write_photos

from vissl_zoo.data import open_images

FASTER = Target("≥", 1.0)
FASTDUP = """
import sys, fastdup
fastdup.create(input_dir=sys.argv[1], work_dir=sys.argv[2]).run(ccthreshold=0.96, overwrite=True)
"""


@dataclass(frozen=True)
class PhotosOptions(Options):
    """What to score, and how often."""

    data: Data = field(default_factory=Data)
    photos: int = 700
    """How many photos are generated."""
    fastdup_python: str | None = None
    """The Python of an environment that has fastdup."""
    repeats: int = 3
    """Turns of each that count, after one that does not."""


def measure(options: PhotosOptions, report: Report) -> None:
    """Both over one folder, in turns."""
    what = "photos: score --no-fit and dedup"
    if options.fastdup_python is None:
        reason = "no --fastdup-python is named"
        report.add(Line(what, "images/s", target=FASTER, reason=reason))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data.path or str(
            write_photos(Path(scratch) / "photos", 8 if options.quick else options.photos)
        )
        count = len(open_images(folder))
        rates: tuple[list[float], list[float]] = [], []
        for turn in range(1 + (1 if options.quick else options.repeats)):
            taken = [call(folder, scratch, options) for call in (ours, fastdup)]
            say(f"photos: turn {turn}, {taken[0]:.1f} and {taken[1]:.1f} s")
            for seconds, of in zip(taken, rates, strict=True):
                of.extend([count / seconds] if turn else [])
        name = f"{what}, {count} images"
        report.add(compare(name, "images/s", *rates, against="fastdup, its own model", target=FASTER))


def ours(folder: str, scratch: str, options: PhotosOptions) -> float:
    """Seconds of `score` and `dedup`."""
    table, embeddings = f"{scratch}/scores.parquet", f"{scratch}/embeddings.npy"
    for made in (table, embeddings):
        Path(made).unlink(missing_ok=True)
    command = [
        sys.executable,
        "-c",
        "import sys; from vissl_zoo.commands import main; sys.exit(main(sys.argv[1:]))",
    ]
    score = [*command, "score", folder, "--no-fit", "--output", table, "--embeddings", embeddings]
    dedup = [*command, "dedup", table, "--embeddings", embeddings, "--output", f"{scratch}/unique.parquet"]
    return seconds_of(score) + seconds_of(dedup)


def fastdup(folder: str, scratch: str, options: PhotosOptions) -> float:
    """Seconds of fastdup's run, which finds both near-duplicates and outliers."""
    return seconds_of([str(options.fastdup_python), "-c", FASTDUP, folder, f"{scratch}/fastdup"])


def seconds_of(command: list[str]) -> float:
    """How long a process takes.

    Raises:
        RuntimeError: it failed, with the last that it said.
    """
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout)[-1000:]}")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main("photos", PhotosOptions(), __doc__, measure))
