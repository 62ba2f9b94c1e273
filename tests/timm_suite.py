"""Run timm's own model tests on the models of the zoo.

    python tests/timm_suite.py                                   # fetches timm's source; all names and tags
    python tests/timm_suite.py --timm timm-1.0.31 --names resnet18 vit  # unpacked already; some names
    python tests/timm_suite.py -k "test_model_forward and simsiam_resnet18"  # pytest's own choice

Needs pytest-timeout. The models register through the suite's TORCH_BACKEND hook. A copy of the suite gets two
additions: our modules join those whose intermediate features are tested, and our ViTs those without maps.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import timm

from vissl_zoo.methods import METHODS
from vissl_zoo.models import entrypoints


def fetch(folder: Path) -> Path:
    """Download the source of the installed timm version into `folder` and return its unpacked root."""
    spec = f"timm=={timm.__version__}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "timm", spec]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    with tarfile.open(next(folder.glob("timm-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(p for p in folder.glob("timm-*") if p.is_dir())


def adapt(source: Path, folder: Path) -> Path:
    """Copy timm's model tests to `folder` and enter our modules and our ViTs in its lists."""
    shutil.copy(source / "tests" / "conftest.py", folder)
    text = (source / "tests" / "test_models.py").read_text(encoding="utf-8")
    ours = {"FEAT_INTER_FILTERS": ["zoo"], "NON_STD_FILTERS": [f"{method}_vit_*" for method in METHODS]}
    for name, entries in ours.items():
        start = f"{name} = ["
        if text.count(start) != 1:
            sys.exit(f"timm {timm.__version__}: tests/test_models.py has no {start!r}, adapt this script")
        text = text.replace(start, start + "".join(f"{entry!r}, " for entry in entries))
    target = folder / "test_models.py"
    target.write_text(text, encoding="utf-8")
    return target


def main() -> int:
    """Run the suite and return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--timm", type=Path, help="unpacked source distribution of timm; fetched when left out"
    )
    parser.add_argument(
        "--names", nargs="*", default=[""], help="only names and tags that contain one of these"
    )
    parser.add_argument("-k", dest="expression", help="pytest's expression, in place of --names")
    parser.add_argument("pytest_args", nargs="*", help="passed on to pytest, after --")
    args = parser.parse_args()
    # A name that ships weights is listed under its tags, too, and the configurations are tested tag by tag.
    own = entrypoints()
    every = sorted({*own, *(n for n in timm.list_models(include_tags=True) if n.split(".")[0] in own)})
    names = [name for name in every if any(part in name for part in args.names)]
    if not names:
        sys.exit(f"no name of the zoo contains {' or '.join(args.names)}")
    with tempfile.TemporaryDirectory() as folder:
        source = args.timm or fetch(Path(folder))
        tests = adapt(source, Path(folder))
        # Whole test ids ("[1-dino]"): as a bare word "dino" would also select timm's own "…_dinov2".
        wanted = " or ".join(f"[{batch_size}-{name}]" for batch_size in (1, 2) for name in names)
        wanted = args.expression or wanted
        environment = {**os.environ, "TORCH_BACKEND": "vissl_zoo", "GITHUB_ACTIONS": "1"}
        command = [sys.executable, "-m", "pytest", str(tests), "-p", "no:cacheprovider", "-k", wanted]
        return subprocess.run([*command, *args.pytest_args], env=environment, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
