"""Kill trainings by SIGKILL at random times and inside their saves, resume them, and compare them with ones left alone.

    python tests/crash_matrix.py --tries 100

Half of the tries are killed at a random time, and half of those again when they have gone on. The others are killed
within an operation on a file, so that every kind of them is met: halfway in a write, or before an fsync, a rename or a
removal. One and two processes take turns; of two all are killed. One hash a method covers the last checkpoint's tensors
and the log without its times. The control has another seed, and must differ.

Processes are forked from one that has imported torch and computed nothing. torchrun starts the runs of
two processes that are left alone once more, and must come to the same.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # pyarrow's: what is forked has one thread
sys.path.insert(0, str(Path(__file__).parents[1]))
import train
from vissl_zoo.data.shapes import shapes
from vissl_zoo.methods import METHODS
from vissl_zoo.training import checkpoint
from vissl_zoo.training.log import RunLog

ROOT = Path(__file__).parents[1]
STEPS, TIMES, LIMIT = 8, ("seconds", "images_per_second", "data_share"), 300
SMALL = f"""--backbone test_resnet --image-size 16 --batch-size 16 --max-steps {STEPS} --log-every 1 --save-every 2
    --no-report --no-fit --mixed-precision no --threads 1 --data.workers 0 --resume auto"""


def command(method: str, data: Path, folder: Path, *more: str) -> list[str]:
    recipe = ["demo"] if method == "vi_simsiam" else [f"{method}_resnet18_cifar10", "--model", method]
    return [*recipe, *SMALL.split(), "--data.path", str(data), "--output-dir", str(folder), *more]


def watch_files(journal: Path, last: str, times: int) -> None:
    """Note every operation of this process on files in `journal`; die within the `last` when it is met so often."""
    noted, met = journal.open("w"), collections.Counter()

    def watched(owner, name, path_of, half=None):
        function = getattr(owner, name)

        def call(*arguments, **options):
            operation = f"{name} {re.sub(r'[0-9]+', 'N', Path(path_of(*arguments)).name)}"
            noted.write(operation + "\n")
            noted.flush()
            met[operation] += 1
            if operation == last and met[operation] == times:
                if half is not None:
                    half(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        setattr(owner, name, call)
        return function

    def half_of_the_tensors(tensors, path):
        save_file(tensors, path)
        os.truncate(path, os.path.getsize(path) // 2)

    for name in ("rename", "replace", "rmdir", "unlink"):
        watched(os, name, lambda path, *_: path)
    watched(os, "fsync", lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    write_text = watched(
        Path, "write_text", lambda path, _: path, lambda p, t: write_text(p, t[: len(t) // 2])
    )
    write_bytes = watched(
        Path, "write_bytes", lambda path, _: path, lambda p, b: write_bytes(p, b[: len(b) // 2])
    )
    save_file = watched(checkpoint, "save_file", lambda _, path: path, half_of_the_tensors)
    watched(
        RunLog, "write", lambda log, _: log.path, lambda log, _: log.path.open("a").write('{"step": 3, "lo')
    )


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(arguments: list[str], processes: int, journal: Path, last: str = "", times: int = 1) -> list[int]:
    """Fork a training; returns its process ids. The first of them dies within its `last` operation, if any."""
    port, children = free_port(), []
    for rank in range(processes):
        if child := os.fork():
            children.append(child)
            continue
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            os.environ |= {
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
        with (
            open(os.devnull, "w") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(null),
        ):
            if rank == 0:
                watch_files(journal, last, times)
            code = train.main(arguments)
        os._exit(code)
    return children


def finish(children: list[int]) -> list[int]:
    signal.alarm(LIMIT)  # a training that hangs ends the matrix
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    signal.alarm(0)
    return codes


def kill(children: list[int]) -> bool:
    """Kill all processes of a training; returns whether the first was still at it."""
    for child in children:
        os.kill(child, signal.SIGKILL)
    return finish(children)[0] == -signal.SIGKILL


def digest(folder: Path, processes: int) -> str:
    """What a run came to, its times apart."""
    sha = hashlib.sha256()
    for name in ("method", "optimizer"):
        sha.update((folder / f"checkpoints/step_{STEPS:07d}/{name}.safetensors").read_bytes())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1)), "the log has a gap or a line twice"
    assert {line["processes"] for line in lines} == {processes}
    sha.update(json.dumps([{k: v for k, v in line.items() if k not in TIMES} for line in lines]).encode())
    return sha.hexdigest()[:16]


class Matrix:
    """The tries, and which operations on files they were killed in."""

    def __init__(self, root: Path, seed: int, torchrun: bool):
        self.root, self.draw, self.torchrun = root, random.Random(seed), torchrun
        self.data, self.journal = root / "train.parquet", root / "journal"
        self.met: collections.Counter[str] = collections.Counter()
        if not (child := os.fork()):  # apart: it leaves threads, whose locks a forked training could wait for
            shapes("train", count=64).to_parquet(self.data)
            os._exit(0)
        assert finish([child]) == [0]
        assert len(os.listdir("/proc/self/task")) == 1

    def leave_alone(self, method: str, processes: int, *more: str) -> tuple[str, float, list[str]]:
        """What a run comes to without a kill, its seconds and its operations on files."""
        folder = self.root / "-".join([method, str(processes), *more])
        arguments = command(method, self.data, folder, *more)
        began = time.monotonic()
        assert finish(start(arguments, processes, self.journal)) == [0] * processes
        seconds, operations = time.monotonic() - began, self.journal.read_text().splitlines()
        found = digest(folder, processes)
        if processes == 2 and self.torchrun:
            launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
            arguments[arguments.index(str(folder))] += "-torchrun"
            launched = [*launcher, "--master_port", free_port(), str(ROOT / "train.py"), *arguments]
            subprocess.run(launched, check=True, capture_output=True, timeout=LIMIT)
            assert digest(Path(f"{folder}-torchrun"), 2) == found, (
                f"{method}: torchrun's run differs from ours"
            )
        return found, seconds, operations

    def kill_in_a_save(self, arguments: list[str], processes: int, operations: list[str]) -> bool:
        """Kill a training within one of its operations on files, of the kind that was met least often so far."""
        rarest = min(self.met[name] for name in operations)
        name = self.draw.choice(sorted(n for n in set(operations) if self.met[n] == rarest))
        times = self.draw.randint(1, operations.count(name))
        children = start(arguments, processes, self.journal, name, times)
        codes = finish(children[:1])
        kill(children[1:]) if children[1:] else None
        assert codes == [-signal.SIGKILL], f"{name} was not reached"
        assert (met := self.journal.read_text().splitlines()[-1]) == name, f"{met} instead of {name}"
        self.met[name] += 1
        return True

    def kill_at_random(self, arguments: list[str], processes: int, seconds: float) -> bool:
        """Kill a training at a random time; returns whether it had not ended."""
        children = start(arguments, processes, self.journal)
        time.sleep(self.draw.uniform(0, seconds))
        return kill(children)

    def run(self, method: str, tries: int, shift: int) -> bool:
        """Make the tries of one method and print its line; returns whether all is as it should be."""
        alone = {processes: self.leave_alone(method, processes) for processes in (1, 2)}
        control = self.leave_alone(method, 1, "--seed", "1")[0]
        equal = kills = 0
        for attempt in range(tries):
            processes = 1 + attempt % 2
            expected, seconds, operations = alone[processes]
            folder = self.root / f"{method}-try-{attempt}"
            arguments = command(method, self.data, folder)
            if (attempt + attempt // 2 + shift) % 2:
                kills += self.kill_in_a_save(arguments, processes, operations)
            else:
                kills += self.kill_at_random(arguments, processes, seconds)
                if attempt // 4 % 2:
                    kills += self.kill_at_random(arguments, processes, seconds)
            assert finish(start(arguments, processes, self.journal)) == [0] * processes
            equal += digest(folder, processes) == expected
        both = hashlib.sha256("".join(alone[processes][0] for processes in alone).encode()).hexdigest()[:16]
        print(f"{method:13} {both}  {tries} tries, {tries // 2} in 2 processes, {kills} kills; {equal} equal; "
              f"control differs: {control != alone[1][0]}", flush=True)  # fmt: skip
        return equal == tries and control != alone[1][0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--no-torchrun", action="store_true", help="leave out the runs that torchrun starts")
    flags = parser.parse_args()
    names = flags.methods
    with tempfile.TemporaryDirectory() as temporary:
        matrix = Matrix(Path(temporary), flags.seed, not flags.no_torchrun)
        good = [
            matrix.run(method, flags.tries // len(names) + (number < flags.tries % len(names)), number)
            for number, method in enumerate(names)
        ]
        print(f"killed within {sum(matrix.met.values())} operations on files, of {len(matrix.met)} kinds")
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
