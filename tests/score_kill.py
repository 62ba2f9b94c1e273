"""Score generated images, kill the command by SIGKILL at random times, and compare its table with one made in one go.

    python tests/score_kill.py --images 100000 --kills 10
    python tests/score_kill.py --engine ray

With Ray, a worker and then the command itself are killed, with 1, 2 and 3 workers, and memory is that of a worker.
What is not said here is a flag of `vissl-zoo score`, and goes to every call: `python tests/score_kill.py --exact`.
Processes are forked from one that has imported torch and computed nothing. Memory is that of a call and its children.
"""

import argparse
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

import vissl_zoo.photos.scoring
from vissl_zoo.commands import main as command
from vissl_zoo.hub import export_model
from vissl_zoo.photos.score_table import read_scores

FLOATS = ("kappa", "uncertainty", "set_uncertainty", "percentile")
CLOSE = (
    1e-4  # κ's last digits depend on the size of the batch, which a call that goes on cuts at another place
)


def make(root: Path, count: int) -> None:
    """Images of 24 to 40 pixels, a thousand a folder, no two alike; each 5,000th is damaged. And the smallest model."""
    random_numbers = np.random.default_rng(0)
    for i in range(count):
        folder = root / "photos" / f"{i // 1000:03}"
        if i % 1000 == 0:
            folder.mkdir(parents=True)
        pixels = random_numbers.integers(0, 256, (2 + i % 3, 3, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((24 + i % 17, 32), Image.Resampling.BILINEAR)
        image.save(folder / f"{i:06}.jpg")
        if i % 5000 == 77:
            (folder / f"{i:06}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more of it")
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0, latent_dim=16)
    export_model(model, root / "model")


@contextlib.contextmanager
def forked(function, *arguments, log: Path | None = None) -> Iterator[int]:
    """Call a function in a process of its own, whose standard error goes to `log`; it is reaped in the end."""
    with open(log or os.devnull, "w") as text:
        if not (child := os.fork()):
            code = 1
            try:
                os.dup2(text.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                code = function(*arguments) or 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
    try:
        yield child
    finally:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def ended(child: int) -> int | None:
    """The exit code of a process, negative for a signal; None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def progress(log: Path) -> int:
    """How many images the command says it has done."""
    said = re.findall(r"scoring:[^\r\n]*\| (\d+)/\d+", log.read_text(errors="replace"))
    return int(said[-1]) if said else 0


def memory(child: int) -> int:
    """Bytes that a process and its children keep."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(child)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_info().rss
    return total


def ray_workers(child: int) -> list[psutil.Process]:
    """The processes of a command's actors."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(child).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [process] * " ".join(process.cmdline()).startswith("ray::ShardScorer")
    return found


def worker_memory(child: int) -> int:
    """Bytes that the largest worker keeps."""
    sizes = [0]
    for process in ray_workers(child):
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return max(sizes)


def whole(score: list[str], log: Path, kept=memory) -> list[tuple[int, int]]:
    """Score in one go; returns how many images were done at what memory, ten times a second."""
    measured = []
    with forked(command, score, log=log) as child:
        while (code := ended(child)) is None:
            measured.append((progress(log), kept(child)))
            time.sleep(0.1)
    assert code == 0, log.read_text()[-2000:]
    return measured


def killed(score: list[str], log: Path, kills: int, seconds: float, draw: random.Random) -> int:
    """Kill the command as often as `kills` within `seconds`, and then let it end; returns how often it was killed."""
    count = 0
    for _ in range(kills):
        with forked(command, score, log=log) as child:
            time.sleep(draw.uniform(0, 1.5 * seconds / kills))
            os.kill(child, signal.SIGKILL)
            count += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        print(f"  killed after {progress(log):,} images", flush=True)
    whole(score, log)
    return count


def killed_on_ray(score: list[str], log: Path, images: int, draw: random.Random) -> None:
    """Kill a worker when some images are scored, the command when more are, and then let a third part of it end."""
    with forked(command, score, log=log) as child:
        for share, what in ((draw.uniform(0, 0.4), "a worker"), (draw.uniform(0.4, 0.7), "the command")):
            while progress(log) <= share * images or not ray_workers(child):
                assert ended(child) is None, log.read_text()[-2000:]
                time.sleep(0.1)
            left = ray_workers(child)
            os.kill(left[0].pid if what == "a worker" else child, signal.SIGKILL)
            print(f"  killed {what} after {progress(log):,} images", flush=True)
    whole(score, log)
    assert not any(process.is_running() for process in left), "workers outlive the command"


def on_ray(score: list[str], root: Path, images: int, shards: int, draw: random.Random) -> bool:
    """Compare what killed commands leave with one table made without Ray; whether they are equal."""
    whole([*score, "--output", "once.parquet"], root / "once.log")
    one = read_scores("once.parquet").sort_values("path", ignore_index=True)
    good = True
    for workers in (1, 2, 3):
        folder = f"parts{workers}"
        more = ["--engine", "ray", "--actors", str(workers), "--shards", str(shards), "--output-dir", folder]
        killed_on_ray([*score, *more], root / f"{folder}.log", images, draw)
        other = read_scores(folder).sort_values("path", ignore_index=True)
        apart = difference(one, other)
        left = sorted(file.name for file in Path(folder).iterdir() if ".parquet" not in file.suffix)
        print(f"{workers} workers: {len(other):,} rows of {other['path'].nunique():,} images; numbers differ by "
              f"{apart:.1g} at most; left over: {left}", flush=True)  # fmt: skip
        good = good and len(other) == images and apart <= CLOSE and not left
    measured = whole([*score, *more[:2], *more[4:6], "--actors", "1", "--output-dir", "calm"],
                     root / "calm.log", worker_memory)  # fmt: skip
    early = max(kept for done, kept in measured if done <= images // 5)
    late = max(kept for done, kept in measured if done > images // 5)
    print(f"a worker keeps {early / 1e6:.0f} MB at most in the first fifth, {late / 1e6:.0f} MB after")
    return good and late < 1.1 * early


def difference(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """The largest difference of a number in two tables, relative; all else is asserted to be equal."""
    rest = [name for name in one if name not in FLOATS]
    pd.testing.assert_frame_equal(one[rest], other[rest], check_exact=True)
    assert one["path"].is_unique
    pairs = [(one[name].to_numpy(float), other[name].to_numpy(float)) for name in FLOATS if name in one]
    assert list(one) == list(other)
    assert all(np.array_equal(np.isnan(a), np.isnan(b)) for a, b in pairs)
    return max(
        float(np.nanmax(np.abs(a - b) / np.maximum(np.abs(a), 1e-12), initial=0)) for a, b in pairs[:-1]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="by default 100,000, with Ray 10,000")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["ray"])
    parser.add_argument("--shards", type=int, default=20, help="of the images, with Ray")
    flags, more = parser.parse_known_args()
    flags.images = flags.images or (10_000 if flags.engine else 100_000)
    draw = random.Random(flags.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        with forked(make, root, flags.images) as child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.chdir(root)
        score = ["score", "photos", "--model", "model", "--image-size", "32", *more]
        if flags.engine:
            return int(not on_ray([*score, "--exact"], root, flags.images, flags.shards, draw))
        score += ["--output"]
        began = time.monotonic()
        measured = whole([*score, "once.parquet"], root / "once.log")
        seconds = time.monotonic() - began
        start = min(10_000, flags.images // 10)
        early = max((m for done, m in measured if done <= start), default=0)
        late = max((m for done, m in measured if done > start), default=early)
        print(f"{flags.images:,} images in {seconds:.0f} s; at most {early / 1e6:.0f} MB in the first {start:,}, "
              f"{late / 1e6:.0f} MB after", flush=True)  # fmt: skip
        count = killed([*score, "often.parquet"], root / "often.log", flags.kills, seconds, draw)
        one, other = pd.read_parquet("once.parquet"), pd.read_parquet("often.parquet")
        apart = difference(one, other)
        left = sorted(p.name for p in root.iterdir() if "partial" in p.name or "journal" in p.name)
        damaged = other["uncertainty"].isna().sum()
        print(f"killed {count} times; {len(other):,} rows of {other['path'].nunique():,} images, {damaged} damaged; "
              f"numbers differ by {apart:.1g} at most; left over: {left}")  # fmt: skip
    return int(count < flags.kills or len(other) != flags.images or apart > CLOSE or bool(left))


if __name__ == "__main__":
    sys.exit(main())
