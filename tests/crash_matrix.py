"""Kill a training by SIGKILL at random times and inside its saves, resume it, and compare it with one left alone.

    python tests/crash_matrix.py --tries 100

Processes are forked from one that has imported torch and computed nothing. One hash a method covers the last
checkpoint's tensors and the log without its times. The control has another seed, and must differ.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
sys.path.insert(0, str(Path(__file__).parents[1]))
import train
from vissl_zoo.data.shapes import shapes
from vissl_zoo.methods import METHODS

STEPS, TIMES = 8, ("seconds", "images_per_second", "data_share")
SMALL = f"""--backbone test_resnet --image-size 16 --batch-size 16 --max-steps {STEPS} --log-every 1 --save-every 2
    --no-report --no-fit --mixed-precision no --threads 1 --data.workers 0 --resume auto"""


def command(method: str, data: Path, folder: Path, *more: str) -> list[str]:
    recipe = ["demo"] if method == "vi_simsiam" else [f"{method}_resnet18_cifar10", "--model", method]
    return [*recipe, *SMALL.split(), "--data.path", str(data), "--output-dir", str(folder), *more]


def kill_at(operation: int) -> None:
    """Die before the n-th fsync, rename, replacement or removal of this process."""
    left = [operation]

    def dying(function):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "rename", "replace", "rmdir", "unlink"):
        setattr(os, name, dying(getattr(os, name)))


def start(arguments: list[str], operation: int = 0) -> int:
    """Fork a training; returns its process id."""
    if child := os.fork():
        return child
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        kill_at(operation)
        code = train.main(arguments)
    os._exit(code)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digest(folder: Path) -> str:
    """What a run came to, its times apart."""
    sha = hashlib.sha256()
    for name in ("method", "optimizer"):
        sha.update((folder / f"checkpoints/step_{STEPS:07d}/{name}.safetensors").read_bytes())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)), "the log has a gap or a line twice"
    sha.update(json.dumps([{k: v for k, v in line.items() if k not in TIMES} for line in lines]).encode())
    return sha.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    flags = parser.parse_args()
    draw, names, wrong = random.Random(flags.seed), flags.methods, 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        shapes("train", count=64).to_parquet(root / "train.parquet")
        for number, method in enumerate(names):
            tries = flags.tries // len(names) + (number < flags.tries % len(names))
            data, whole, control = (
                root / "train.parquet",
                root / f"{method}-whole",
                root / f"{method}-control",
            )
            began = time.monotonic()
            assert finish(start(command(method, data, whole))) == 0
            seconds, expected = time.monotonic() - began, digest(whole)
            assert finish(start(command(method, data, control, "--seed", "1"))) == 0
            equal = killed = 0
            for attempt in range(tries):
                folder = root / f"{method}-{attempt}"
                child = start(command(method, data, folder), draw.randint(1, 60) if attempt % 2 else 0)
                if attempt % 2 == 0:
                    time.sleep(draw.uniform(0, seconds))
                    os.kill(child, signal.SIGKILL)
                killed += finish(child) == -signal.SIGKILL
                assert finish(start(command(method, data, folder))) == 0
                equal += digest(folder) == expected
            wrong += (equal != tries) + (digest(control) == expected)
            print(f"{method:14} {expected}  {tries} tries, {killed} killed, {equal} equal; control differs: "
                  f"{digest(control) != expected}", flush=True)  # fmt: skip
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
