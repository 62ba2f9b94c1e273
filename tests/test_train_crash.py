"""The short form of crash_matrix.py: killed by SIGKILL in one and two processes, at random and within a save."""

import subprocess
import sys


def test_killed_and_resumed_is_bitwise_the_run_left_alone(root):
    done = subprocess.run(
        [
            sys.executable,
            str(root / "tests" / "crash_matrix.py"),
            "--tries",
            "4",
            "--methods",
            "simsiam",
            "dino",
            "--no-torchrun",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("2 tries, 1 in 2 processes") == 2
    assert done.stdout.count("2 equal; control differs: True") == 2
    assert "killed within 2 operations on files, of 2 kinds" in done.stdout
