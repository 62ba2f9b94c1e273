"""A full, read-only or vanished disk ends a training in one line with exit code 2, and the last checkpoint stays whole.

RLIMIT_FSIZE stands for the full disk: a file larger than that fails with an OSError, as on one.
"""

import importlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys

import datasets
import pytest

from vissl_zoo.training.checkpoint import newest_checkpoint
from vissl_zoo.training.run_folder import Run


@pytest.fixture
def limit():
    """limit(bytes): no file may grow beyond; over with the test."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # Python's own doing
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def ends(train_main, small, tmp_path, limit):
    """ends(*flags) -> (the line of a training of 4 steps that had to end, its newest whole checkpoint's name)."""

    def ends(*flags):
        run = tmp_path / "run"
        flags = flags or ("--no-report",)
        outcome = train_main(
            *small, "--max-steps", "4", "--log-every", "1", "--save-every", "1", *flags, "--output-dir", run
        )
        limit(resource.RLIM_INFINITY)
        assert outcome.code == 2, outcome
        assert "Traceback" not in outcome.err
        assert outcome.err.count("train.py: ") == 1
        checkpoint, faults = newest_checkpoint(run / "checkpoints")
        assert faults == {}
        return outcome.err.splitlines()[-1], checkpoint and checkpoint.name

    return ends


@pytest.fixture
def after_two_steps(monkeypatch):
    """after_two_steps(action): it happens once, when the second step is done."""
    done = []

    def after_two_steps(action):
        def happen(run):
            if run.step == 2 and not done:
                done.append(action(run))
            return False

        monkeypatch.setattr(Run, "out_of_time", property(happen))

    return after_two_steps


def test_no_room_for_a_checkpoint(ends, after_two_steps, limit, train_main, small, tmp_path):
    after_two_steps(lambda run: limit(50_000))
    line, kept = ends()
    assert line.startswith("train.py: the checkpoint of step 2 cannot be written: ")
    assert kept == "step_0000001"
    flags = ("--max-steps", "4", "--no-report", "--output-dir", tmp_path / "run", "--resume")
    assert train_main(*small, *flags).code == 0


def test_no_room_for_the_log(ends, after_two_steps, limit):
    after_two_steps(lambda run: limit(1000))
    line, kept = ends("--no-report", "--save-every", "9")
    assert "metrics.jsonl cannot be written: File too large" in line
    assert kept is None


def test_no_room_for_the_recipe(ends, limit):
    limit(100)
    line, kept = ends()
    assert "recipe.json cannot be written: File too large" in line
    assert kept is None


@pytest.mark.parametrize("place", ["export_model", "report_training"])
def test_no_room_for_what_a_finished_training_leaves(ends, limit, monkeypatch, place):
    finish = importlib.import_module("vissl_zoo.training.finish")  # whose function hides it
    function = getattr(finish, place)

    def with_a_full_disk(*arguments, **options):
        limit(50_000 if place == "export_model" else 2000)
        return function(*arguments, **options)

    monkeypatch.setattr(finish, place, with_a_full_disk)
    line, kept = ends("--report-images", "40")
    assert ("export cannot be written" if place == "export_model" else "report/") in line
    assert kept == "step_0000004"


def test_a_folder_that_vanishes(ends, after_two_steps):
    after_two_steps(lambda run: shutil.rmtree(run.folder))
    line, kept = ends()
    assert "metrics.jsonl cannot be written: No such file" in line
    assert kept is None


@pytest.mark.parametrize(
    "options, said", [("size=8m", "No space left on device"), ("ro", "Read-only file system")]
)
def test_a_small_disk_and_a_read_only_one(ends, tmp_path, options, said):
    (tmp_path / "run").mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", tmp_path / "run"]
    try:
        subprocess.run(mounted, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mount needs root")
    try:
        line, kept = ends("--no-report", "--keep-checkpoints", "9")
        assert said.lower() in line.lower()
        assert (kept is None) == (options == "ro")
    finally:
        subprocess.run(["umount", "-l", tmp_path / "run"], check=False)


@pytest.mark.parametrize("room, code", [("4k", 2), ("64k", 0)])
def test_shared_memory_that_is_full_and_a_little_of_it(root, small, tmp_path, room, code):
    """Images are decoded in threads, so that a container's small /dev/shm is enough; `datasets` puts a number there."""
    train = [
        sys.executable,
        str(root / "train.py"),
        *small,
        "--max-steps",
        "2",
        "--no-report",
        "--data.streaming",
    ]
    train += ["--data.workers", "2", "--output-dir", str(tmp_path / "run")]
    tiny = f'mount -t tmpfs -o size={room} tmpfs /dev/shm || exit 99; exec "$@"'
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", tiny, "sh", *train], capture_output=True, text=True
        )
    except OSError:
        pytest.skip("unshare is not there")
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip("mount needs root")
    assert done.returncode == code, done.stderr
    assert (tmp_path / "run" / "export").is_dir() == (code == 0)
    if code:
        assert "unable to allocate shared memory" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.fixture
def both(small, root, tmp_path):
    """both(*flags) -> the last line of each of two processes, which must have ended with exit code 2.

    No launcher watches over them: one that waited for the other would wait until the time is up.
    """

    def both(*flags, room=resource.RLIM_INFINITY):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        common |= {"HF_DATASETS_CACHE": str(datasets.config.HF_DATASETS_CACHE), "ACCELERATE_USE_CPU": "true"}
        processes = [
            subprocess.Popen(
                [sys.executable, root / "train.py", *small, *flags, "--output-dir", tmp_path / "run"],
                env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank},
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY)),
            )
            for rank in ("0", "1")
        ]
        try:
            said = [process.communicate(timeout=120)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [2, 2], said
        first, second = (text.splitlines()[-1] for text in said)
        assert "Traceback" not in "".join(said)
        assert first.replace("train.py", "train.py (process 1)", 1) == second
        return first

    return both


def test_both_processes_end_where_the_first_cannot_write_the_recipe(both, tmp_path):
    (tmp_path / "run" / "recipe.json").mkdir(parents=True)
    assert "recipe.json cannot be written: Is a directory" in both("--overwrite", "--no-report")


def test_both_processes_end_where_the_first_cannot_save(both, demo_run):
    """The data are in the cache already, since a process with so little room could not put them there."""
    said = both("--max-steps", "4", "--save-every", "1", room=60_000)
    assert said.startswith("train.py: the checkpoint of step 1 cannot be written: ")


def test_both_processes_end_where_the_first_finds_no_images(both, tmp_path):
    (tmp_path / "empty").mkdir()
    said = both("--data.path", tmp_path / "empty")
    assert said.startswith(f"train.py: {tmp_path / 'empty'}")
