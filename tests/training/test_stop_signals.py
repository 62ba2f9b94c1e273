"""A signal ends a training after its step, with a checkpoint and the exit code 128 + n, in all of its processes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from vissl_zoo.training.run_folder import Run
from vissl_zoo.training.stop_signals import STOPPING, StopSignals


@pytest.mark.parametrize("number", STOPPING)
def test_the_step_is_finished_and_saved(train_main, small, tmp_path, monkeypatch, number):
    arguments = (*small, "--max-steps", "5", "--no-report", "--output-dir")
    handlers = [signal.getsignal(n) for n in STOPPING]

    def send(run):
        if run.step == 3:
            os.kill(os.getpid(), number)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Run, "out_of_time", property(send))
        outcome = train_main(*arguments, tmp_path / "broken")
    assert outcome.code == 128 + number
    assert "stopped at step 3 of 5; --resume goes on" in outcome.out
    assert [signal.getsignal(n) for n in STOPPING] == handlers
    assert train_main(*arguments, tmp_path / "broken", "--resume").code == 0
    assert train_main(*arguments, tmp_path / "whole").code == 0
    ends = [
        load_file(tmp_path / n / "checkpoints/step_0000005/method.safetensors") for n in ("broken", "whole")
    ]
    assert all((ends[0][key] == value).all() for key, value in ends[1].items())


def test_the_first_signal_counts_and_only_a_second_interrupt_is_let_through():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_save_by_the_clock(train_main, small, tmp_path):
    flags = ("--max-steps", "3", "--save-minutes", "1e-9", "--keep-checkpoints", "9", "--no-report")
    assert train_main(*small, *flags, "--output-dir", tmp_path / "run").code == 0
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 3


def test_one_of_two_processes_gets_the_signal(root, small, tmp_path):
    """Both end after the same step, with the same code."""
    run = tmp_path / "run"
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(root)!r})
import train
from vissl_zoo.training.run_folder import Run
def send(run):
    if run.step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return False
Run.out_of_time = property(send)
code = train.main(sys.argv[1:])
open({str(tmp_path)!r} + "/code" + os.environ["RANK"], "w").write(str(code))
"""
    (tmp_path / "driver.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000)}
    arguments = [*small, "--max-steps", "50", "--no-report", "--output-dir", str(run)]
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py"), *arguments],
            env={**environment, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
        )
        for rank in "01"
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert time.monotonic() - started < 120
    assert [(tmp_path / f"code{rank}").read_text() for rank in "01"] == ["143", "143"]
    assert len(list((run / "checkpoints").glob("step_000000[34]"))) == 1
