"""OpenMP's threads are told to sleep early by who asks for it, without torch; the user's own word stays."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("said, expected", [("", "3000"), ("os.environ['GOMP_SPINCOUNT'] = '7'", "7")])
def test_spin_less_needs_no_torch(said, expected, root):
    code = f"""if True:
        import os, runpy, sys
        os.environ.pop("GOMP_SPINCOUNT", None)
        sys.modules["torch"] = None  # an import of it fails
        room = runpy.run_path({str(root / "vissl_zoo/cpu/__init__.py")!r})
        {said}
        room["spin_less"]()
        print(os.environ["GOMP_SPINCOUNT"])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr
