"""The short form of crash_matrix.py: killed by SIGKILL once at random and once within a save, for two methods."""

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
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("2 tries") == done.stdout.count("2 equal; control differs: True") == 2
