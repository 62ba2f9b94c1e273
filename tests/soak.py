"""Train for long with many saves: memory and open files stay flat, and the kept checkpoints are exact.

    python tests/soak.py --steps 2000 --saves 50

A checkpoint is exact when its sums verify, and when a copy of the run that goes on from the last but one comes to the
last, bit for bit. Memory and open files are compared between the first tenth of the steps and the rest.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pyarrow's: what is forked has one thread
sys.path.insert(0, str(Path(__file__).parents[1]))
import psutil
from datasets import disable_progress_bars

import train
from vissl_zoo.data.shapes import shapes
from vissl_zoo.training.checkpoint_manifest import fault

SMALL = """--backbone test_resnet --image-size 16 --batch-size 16 --log-every 1 --no-report --no-fit
    --mixed-precision no --threads 1 --data.workers 0 --keep-checkpoints 2"""
SLACK = 16e6  # bytes: what the allocator may keep of a save


def start(arguments: list[str], log: Path) -> int:
    """Fork a training; returns its process id."""
    with open(log, "w") as text:
        if child := os.fork():
            return child
        code = 1
        try:
            os.dup2(text.fileno(), 2)
            os.dup2(text.fileno(), 1)
            code = train.main(arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def newest(folder: Path) -> int:
    """The step of the newest checkpoint, 0 before the first."""
    names = os.listdir(folder / "checkpoints") if (folder / "checkpoints").is_dir() else []
    return max((int(name.removeprefix("step_")) for name in names if name.startswith("step_")), default=0)


def watch(child: int, folder: Path) -> tuple[int, list[tuple[int, int, int]]]:
    """Wait for a training; returns its exit code, and step, bytes and open files five times a second."""
    process, seen = psutil.Process(child), []
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        with contextlib.suppress(psutil.Error, OSError):
            seen.append((newest(folder), process.memory_info().rss, process.num_fds()))
        time.sleep(0.2)
    return os.waitstatus_to_exitcode(ended[1]), seen


def tensors(checkpoint: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(checkpoint.glob("*.safetensors"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--saves", type=int, default=50)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder, log = root / "run", root / "log"
        disable_progress_bars()
        shapes("train", count=256).to_parquet(root / "train.parquet")
        every = flags.steps // flags.saves
        arguments = [
            *SMALL.split(),
            "--data.path",
            str(root / "train.parquet"),
            "--max-steps",
            str(flags.steps),
        ]
        arguments += ["--save-every", str(every), "--output-dir"]
        code, seen = watch(start([*arguments, str(folder)], log), folder)
        assert code == 0, log.read_text()[-2000:]

        after = [point for point in seen if point[0] >= every]  # the first save has been
        tenth = max(flags.steps // 10, every)
        early, late = [p for p in after if p[0] <= tenth], [p for p in after if p[0] > tenth]
        memory, memory_after = (max(point[1] for point in points) for points in (early, late))
        # A save has files open for a moment, so the median tells what stays open.
        files, files_after = (
            statistics.median_high(point[2] for point in points) for points in (early, late)
        )
        print(f"{flags.steps:,} steps, {flags.steps // every} saves: at most {memory / 1e6:.0f} MB in the first tenth, "
              f"{memory_after / 1e6:.0f} MB after; {files} and {files_after} open files", flush=True)  # fmt: skip

        kept = sorted((folder / "checkpoints").glob("step_*"))
        faults = [wrong for checkpoint in kept if (wrong := fault(checkpoint))]
        again = root / "again"
        shutil.copytree(folder, again)
        shutil.rmtree(again / "checkpoints" / kept[-1].name)
        assert newest(again) == flags.steps - every
        code, _ = watch(start([*arguments, str(again), "--resume"], log), again)
        assert code == 0, log.read_text()[-2000:]
        exact = tensors(kept[-1]) == tensors(again / "checkpoints" / kept[-1].name)
        different = tensors(kept[-1]) != tensors(kept[0])
        print(f"kept: {', '.join(c.name for c in kept)}; faults: {faults}; the last from the last but one: "
              f"{'bitwise equal' if exact else 'DIFFERENT'}; the two differ: {different}")  # fmt: skip
        names = [f"step_{flags.steps - every:07d}", f"step_{flags.steps:07d}"]
        flat = memory_after <= memory + SLACK and files_after <= files
        return int(not (flat and exact and different and not faults and [c.name for c in kept] == names))


if __name__ == "__main__":
    sys.exit(main())
