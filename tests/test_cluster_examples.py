"""examples/accelerate: its configurations are accelerate's, and its job saves, requeues itself and goes on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from accelerate.commands.config.config_args import load_config_from_file

# A queue of this machine: every "node" is a process of it.
SRUN = """#!/bin/bash
shift
trap 'kill -TERM $(jobs -p)' TERM
for node in $(seq 0 $((SLURM_NNODES - 1))); do SLURM_NODEID=$node "$@" & done
wait; wait
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> requeued
"""


@pytest.mark.parametrize(
    "name, machines, processes", [("one_gpu", 1, 1), ("eight_gpus", 1, 8), ("two_nodes", 2, 16)]
)
def test_accelerate_reads_the_configuration(root, name, machines, processes):
    config = load_config_from_file(str(root / "examples" / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes, config.mixed_precision) == (
        machines,
        processes,
        "bf16",
    )
    assert config.distributed_type == ("NO" if processes == 1 else "MULTI_GPU")


@pytest.fixture
def job(root, small, tmp_path):
    """job() -> the running job of two nodes of one process each, in a queue that is this machine."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    shutil.copy(root / "train.py", tmp_path)

    def job():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        slurm = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a[1-2]"}
        mine = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "GPUS": "1",
            "PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        mine |= {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(root)}
        script = root / "examples" / "accelerate" / "slurm.sh"
        flags = ("--epochs", "20", "--no-report", "--output-dir", "run")
        return subprocess.Popen(
            ["bash", script, *small, *flags], cwd=tmp_path, env={**os.environ, **slurm, **mine},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return job


def test_a_job_that_is_told_to_end_saves_and_goes_back_into_the_queue(job, tmp_path):
    log = tmp_path / "run" / "metrics.jsonl"
    with job() as first:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("\n") >= 2) and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        first.send_signal(signal.SIGTERM)
        said, _ = first.communicate(timeout=60)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n", said
    [saved] = [int(folder.name[5:]) for folder in (tmp_path / "run" / "checkpoints").glob("step_*")]
    assert 0 < saved < 140  # of 20 epochs of 7 steps
    assert not (tmp_path / "run" / "export").exists()
    with job() as second:
        said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said[-2000:]
    assert f"resuming run at step {saved}" in said
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (lines[-1]["step"], {line["processes"] for line in lines}) == (140, {2})
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"  # a finished training does not go back
