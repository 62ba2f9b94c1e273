"""What an installation gets: the wheel holds what it must, and pyproject.toml declares what is imported."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

PACKED = {
    f"vissl_zoo/weights/{name}.safetensors"
    for name in ("vi_simsiam_resnet18.cifar10", "kappa.efficientnet_lite0_photos")
}
LARGEST_WHEEL = 60_000_000
USE = """
import timm, torch, vissl_zoo
model = timm.create_model("vi_simsiam_resnet18", pretrained=True).eval()
assert model.represent(torch.zeros(1, 3, 32, 32)).kappa > 0
try:
    timm.create_model("simclr_resnet18", pretrained=True)
except RuntimeError as error:
    print(vissl_zoo.__file__, error, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    """A wheel, built from a copy of the checkout, so that no earlier build gets into it."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    shutil.copytree(
        root / "vissl_zoo",
        copy / "vissl_zoo",
        ignore=shutil.ignore_patterns("__pycache__"),
        copy_function=lambda file, to: (
            os.symlink(file, to) if file.endswith(".safetensors") else shutil.copy(file, to)
        ),
    )
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, out], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [file] = out.glob("*.whl")
    return file


def test_the_wheel_has_all_but_the_further_weights(wheel, root):
    assert wheel.stat().st_size < LARGEST_WHEEL
    held = {name for name in ZipFile(wheel).namelist() if name.startswith("vissl_zoo/")}
    ours = {f.relative_to(root).as_posix() for f in (root / "vissl_zoo").rglob("*") if f.is_file()}
    ours = {f for f in ours if "__pycache__" not in f and not Path(f).name.startswith(".")}
    assert {f for f in ours - held if not f.endswith(".safetensors")} == set()
    assert {f for f in held if f.endswith(".safetensors")} == PACKED
    assert held <= ours


def test_an_installed_wheel_works_and_says_who_has_the_rest(wheel, tmp_path):
    ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    where, *said = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert len(said) == 1
    assert "simclr_resnet18.cifar10" in said[0]
    assert "a checkout of the repository has it" in said[0]


EXTRAS = {"faiss-cpu", "ray"}  # imported where they are installed, by the extra that names them


def imported(root: Path) -> set[str]:
    """Top-level names of the third-party modules that the package and train.py import, wherever they do."""
    found = set()
    for file in [root / "train.py", *(root / "vissl_zoo").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"vissl_zoo"}


def declared(root: Path) -> set[str]:
    """Names of the distributions in pyproject.toml's dependencies, lower case with dashes."""
    block = re.search(
        r"^dependencies = \[(.*?)^\]", (root / "pyproject.toml").read_text(encoding="utf-8"), re.S | re.M
    )
    return {name.lower().replace("_", "-") for name in re.findall(r'^\s*"([\w-]+)', block[1], re.M)}


def test_what_is_imported_is_declared_and_nothing_else(root):
    distributions = packages_distributions()
    needed = {
        name: {found.lower().replace("_", "-") for found in distributions.get(name, [name])}
        for name in imported(root)
    }
    missing = {name for name, by in needed.items() if not by & (declared(root) | EXTRAS)}
    assert missing == set(), "imported, but not among the dependencies of pyproject.toml"
    assert declared(root) - set().union(*needed.values()) == set(), "declared, but imported nowhere"
