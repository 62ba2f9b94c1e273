"""An earlier run stays unless its removal is asked for, and two processes never share a folder."""

import subprocess
import sys

import pytest

from vissl_zoo import file_lock
from vissl_zoo.errors import UserError
from vissl_zoo.file_lock import Locked, released_at_the_end, take_lock
from vissl_zoo.methods import RECIPES
from vissl_zoo.recipes import parse
from vissl_zoo.training.folder_choice import claim_folder

HOLD = """
import sys, time
from pathlib import Path
from vissl_zoo.file_lock import take_lock
take_lock(Path(sys.argv[1]), "it")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def claim(tmp_path, monkeypatch):
    """claim(*flags) -> (folder, whether it is resumed), released again."""
    monkeypatch.chdir(tmp_path)

    def claim(*flags):
        with released_at_the_end():
            folder, resumes = claim_folder(parse([*flags], RECIPES))
        return str(folder), resumes

    return claim


@pytest.fixture
def holder(tmp_path):
    """holder(lock) -> another process that holds this lock."""
    started = []

    def holder(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        started.append(
            subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
        )
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield holder
    for process in started:
        process.kill()
        process.wait()


def leave_run(folder, checkpoint=True):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text("{}")
    if checkpoint:
        (folder / "checkpoints" / "step_0000002").mkdir(parents=True)


def test_the_next_free_folder_is_taken(claim, tmp_path):
    assert claim() == ("runs/demo", False)
    assert claim() == ("runs/demo", False)  # nothing was left in it
    leave_run(tmp_path / "runs" / "demo")
    assert claim() == ("runs/demo-2", False)
    leave_run(tmp_path / "runs" / "demo-2")
    assert claim() == ("runs/demo-3", False)
    assert claim("--overwrite") == ("runs/demo", False)
    assert claim("--name", "other") == ("runs/other", False)


@pytest.mark.parametrize("part", ["recipe.json", "metrics.jsonl", "checkpoints", "export", "report"])
def test_a_named_folder_that_holds_anything_of_a_run_is_refused(claim, tmp_path, part):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / part).mkdir()
    with pytest.raises(UserError, match=r"mine holds an earlier run: --resume .* --overwrite .*--output-dir"):
        claim("--output-dir", "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == [part]
    assert claim("--output-dir", "mine", "--overwrite") == ("mine", False)


def test_resume_takes_the_newest_of_the_name(claim, tmp_path):
    with pytest.raises(UserError, match=r"--resume: there is no checkpoint in runs/demo\*"):
        claim("--resume")
    assert claim("--resume", "auto") == ("runs/demo", False)
    for name in ("demo-2", "demo", "demo_other", "demo-two"):
        leave_run(tmp_path / "runs" / name)
    assert (
        claim("--resume")
        == claim("--resume", "auto")
        == claim("--resume", "--lr", "1")
        == ("runs/demo", True)
    )


def test_auto_starts_a_run_anew_that_never_saved_and_leaves_an_export_alone(claim, tmp_path):
    leave_run(tmp_path / "runs" / "demo", checkpoint=False)
    assert claim("--resume", "auto") == ("runs/demo", False)
    (tmp_path / "runs" / "demo" / "export").mkdir()
    assert claim("--resume", "auto") == ("runs/demo-2", False)
    with pytest.raises(UserError, match="holds an earlier run"):
        claim("--resume", "auto", "--output-dir", "runs/demo")


def test_a_folder_in_use(claim, holder, tmp_path):
    other = holder(tmp_path / "runs" / "demo" / ".lock")
    for flags in (["--output-dir", "runs/demo"], ["--overwrite"]):
        with pytest.raises(UserError, match=f"runs/demo is in use by process {other.pid} on "):
            claim(*flags)
    assert claim() == ("runs/demo-2", False)
    leave_run(tmp_path / "runs" / "x")
    (tmp_path / "runs" / "demo" / "recipe.json").touch()
    with pytest.raises(UserError, match=f"in use by process {other.pid}"):
        claim("--resume")
    other.kill()
    other.wait()
    assert claim("--resume") == ("runs/demo", True)


def test_children_do_not_keep_the_lock(tmp_path):
    """Neither a forked one nor another program, when the process that took it is killed."""
    lock = tmp_path / ".lock"
    parent = f"""
import multiprocessing, os, signal, subprocess, sys, time
from pathlib import Path
from vissl_zoo.file_lock import take_lock
take_lock(Path({str(lock)!r}), "it")
forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
forked.start()
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], close_fds=False)
print(forked.pid, other.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in process.stdout.readline().split()]
    process.wait()
    try:
        assert len(children) == 2
        with released_at_the_end():
            take_lock(lock, "it")
    finally:
        for pid in children:
            subprocess.run(["kill", "-9", str(pid)], check=False)


def test_an_output_file_in_use(holder, tmp_path):
    other = holder(tmp_path / ".scores.parquet.lock")
    (tmp_path / "link").symlink_to(tmp_path)
    for where in (tmp_path, tmp_path / "link"):
        with (
            pytest.raises(Locked, match=f"scores.parquet is in use by process {other.pid}"),
            file_lock.output_locked(where / "scores.parquet"),
        ):
            pass
    with file_lock.output_locked(tmp_path / "others.parquet"):
        assert (tmp_path / ".others.parquet.lock").exists()
    assert not (tmp_path / ".others.parquet.lock").exists()
