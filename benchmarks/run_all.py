"""Run the benchmarks, each in a process of its own, and write results.jsonl and RESULTS.md.

    pip install lightly==1.6.0 -e ".[cpu]"
    python benchmarks/run_all.py                          # ten minutes on two cores; leave the machine alone
    python benchmarks/run_all.py --only training scoring  # the lines of the others are kept

One that fails loses only its own lines: a line says why.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from measure import Line, say, set_threads
from results import read_lines, render

from vissl_zoo.cli import parse_flags
from vissl_zoo.errors import UserError

HERE = Path(__file__).resolve().parent
Script = Literal["training", "scoring", "runtime", "knn", "linear"]
SCRIPTS: tuple[Script, ...] = ("training", "scoring", "runtime", "knn", "linear")


@dataclass(frozen=True)
class Data:
    """The images."""

    path: str | None = None
    """CIFAR-10 or the like, to train on; by default the embedded shapes."""


@dataclass(frozen=True)
class RunAllOptions:
    """What to run."""

    data: Data = field(default_factory=Data)
    only: tuple[Script, ...] = ()
    """Which benchmarks to run; by default all."""
    quick: bool = False
    """Small sizes and few repeats, to see that all works: no figures to rely on."""
    threads: int | None = None
    """Threads of torch and its libraries in each benchmark."""
    output_dir: str = str(HERE)
    """Where results.jsonl and RESULTS.md go."""


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code: 1 if a benchmark failed, 2 after one line about bad input."""
    try:
        options = parse_flags(RunAllOptions, RunAllOptions(), arguments, "benchmarks/run_all.py", __doc__)
        if options.threads is not None and options.threads < 1:
            raise UserError(f"--threads must be at least 1, not {options.threads}")
        folder = Path(options.output_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output-dir {folder}: {error.strerror}") from error
    except UserError as error:
        print(f"benchmarks/run_all.py: {error}", file=sys.stderr)
        return 2
    chosen = options.only or SCRIPTS
    set_threads(options.threads)  # the figures of a failure, too, say how many there were
    kept = {script: lines_of(script, read_lines(folder / "results.jsonl")) for script in SCRIPTS}
    failed = []
    for script in (s for s in SCRIPTS if s in chosen):
        say(f"=== {script}")
        kept[script], code = run(script, options)
        if code:
            failed.append(script)
        write(folder, [line for script in SCRIPTS for line in kept[script]])
    say(f"{folder / 'RESULTS.md'}{' (failed: ' + ', '.join(failed) + ')' if failed else ''}")
    return 1 if failed else 0


def run(script: Script, options: RunAllOptions) -> tuple[list[dict], int]:
    """The lines that a script wrote, with one that says so if it failed, and its exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "lines.jsonl"
        command = [sys.executable, str(HERE / f"{script}.py"), "--output", str(output)]
        command += ["--quick"] if options.quick else []
        command += [] if options.threads is None else ["--threads", str(options.threads)]
        if script == "training" and options.data.path is not None:
            command += ["--data.path", options.data.path]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        sys.stderr.write(done.stderr)
        lines = read_lines(output)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        reason = f"the benchmark failed: {said}"
        lines.append(Line(f"{script}: the rest", "", quick=options.quick, reason=reason).described())
    return lines, done.returncode


def lines_of(script: str, lines: list[dict]) -> list[dict]:
    """A script's lines of an earlier call: their names begin with it."""
    return [line for line in lines if line["name"].startswith(f"{script}:")]


def write(folder: Path, lines: list[dict]) -> None:
    """Write both files, after every benchmark: an interrupted call loses only what it was at."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    (folder / "RESULTS.md").write_text(render(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
