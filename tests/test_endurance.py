"""The short forms of soak.py and score_kill.py."""

import subprocess
import sys


def run(root, script, *arguments):
    command = [sys.executable, str(root / "tests" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


def test_memory_and_open_files_stay_flat_over_many_saves(root):
    said = run(root, "soak.py", "--steps", "60", "--saves", "6")
    assert "60 steps, 6 saves" in said
    assert "faults: []; the last from the last but one: bitwise equal; the two differ: True" in said


def test_a_score_that_is_killed_comes_to_the_table_made_in_one_go(root):
    said = run(root, "score_kill.py", "--images", "1000", "--kills", "2", "--seed", "9")  # early enough
    assert "killed 2 times; 1,000 rows of 1,000 images, 1 damaged" in said
    assert "left over: []" in said
