"""The one direction of dependency, held by a walk over every import, those inside functions included."""

import ast
from pathlib import Path

import pytest
import timm.models

# What each room may import of the others. The first four files are everybody's, and a room's own files too.
MAY_IMPORT = {
    "errors": set(),
    "lazy": set(),
    "output": set(),
    "file_lock": set(),
    "": {
        "registration",
        "data",
        "models",
        "evaluation",
        "uncertainty",
        "photos",
    },  # vissl_zoo/__init__.py
    "registration": set(),
    "distributions": set(),
    "networks": {"distributions"},
    "weights": set(),
    "models": {"distributions", "networks", "weights"},
    "methods": {"distributions", "networks", "models", "recipes"},
    "cpu": set(),
    "data": {"cpu"},
    "cli": set(),
    "commands": {"cli", "data", "models", "inference", "evaluation", "photos", "uncertainty", "hub", "cpu"},
    "views": {"cli", "data", "recipes"},  # its __main__ draws the views of a data set
    "recipes": {"cli"},
    "inference": {"networks", "models", "data", "views", "hub"},
    "evaluation": {"cli", "inference", "models", "data", "views"},
    "photos": {"data", "models", "views", "inference", "evaluation", "uncertainty", "cpu"},
    "uncertainty": {
        "distributions",
        "networks",
        "models",
        "data",
        "views",
        "inference",
        "evaluation",
        "hub",
        "cpu",
    },
    "hub": {"models"},
    "training": {
        "recipes",
        "methods",
        "models",
        "networks",
        "data",
        "views",
        "cpu",
        "evaluation",
        "hub",
        "uncertainty",
    },
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 70
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib"}
CALLS = {"torch.save", "torch.load", "torch.serialization.save", "torch.serialization.load"}


def imports(file: Path, package: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything that a file of the package imports."""
    found = []
    here = [package.name, *file.relative_to(package).with_suffix("").parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return found


def room_of(file: Path, package: Path) -> str:
    first = file.relative_to(package).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def violations(package: Path) -> list[str]:
    """One line for every import that the rules forbid."""
    found = []
    for file in sorted(package.rglob("*.py")):
        room = room_of(file, package)
        for line, name in imports(file, package):
            top, *rest = name.split(".")
            where = f"{file.relative_to(package)}:{line} imports {name}"
            if top in ("train", "tests", "hubconf"):
                found.append(where)
            if top != package.name:
                continue
            target = rest[0] if rest else ""
            if target not in MAY_IMPORT:  # a name of vissl_zoo/__init__.py
                target = ""
            everybodys = {"errors": set(), "lazy": set(), "output": {"errors"}, "file_lock": {"errors"}}.get(
                room, {"errors", "lazy", "output", "file_lock"}
            )
            allowed = MAY_IMPORT.get(room, set()) | everybodys | {room}
            if target not in allowed:
                found.append(where)
    return found


def unsafe(file: Path) -> list[str]:
    """Pickle in any form: imported, or hidden in torch.save and torch.load."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{a.name}" for a in node.names}
            names |= {name.split(".")[0] for name in names}
        elif isinstance(node, ast.Attribute):
            names = {ast.unparse(node)}
        else:
            continue
        found += [f"{file.name}:{node.lineno} {name}" for name in names & (MODULES | CALLS)]
    return found


def long_functions(file: Path) -> list[str]:
    """Functions, without their docstrings, that are longer than a reader can hold."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            if node.end_lineno - first.lineno >= LONGEST_FUNCTION:
                found.append(f"{file.name}:{node.lineno} {node.name}")
    return found


@pytest.fixture
def package(root) -> Path:
    return root / "vissl_zoo"


def test_every_room_has_its_rule(package):
    rooms = {room_of(file, package) for file in package.rglob("*.py")}
    assert rooms == MAY_IMPORT.keys()


def test_dependencies_point_one_way(package):
    assert violations(package) == []


@pytest.mark.parametrize(
    "file, statement",
    [
        ("views/view_crops.py", "from vissl_zoo.methods import DINO"),
        ("data/table.py", "from ..recipes.recipe import Recipe"),
        ("recipes/base.py", "def f():\n    import vissl_zoo.methods.dino"),
        ("evaluation/knn.py", "from vissl_zoo import methods"),
        ("evaluation/knn.py", "from vissl_zoo.training.log import RunLog"),
        ("hub/card.py", "from vissl_zoo.evaluation.neighbours import knn"),
        ("models/dino.py", "from vissl_zoo import data"),
        ("errors.py", "from vissl_zoo.data import open_images"),
        ("training/launch.py", "import train"),
        ("training/launch.py", "from tests.conftest import ROOT"),
        ("networks/kappa_head.py", "from vissl_zoo import create_model"),
        ("distributions/sphere.py", "from ..networks import kappa"),
    ],
)
def test_a_planted_violation_is_caught(file, statement, tmp_path):
    planted = tmp_path / "vissl_zoo" / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text("import torch\nfrom vissl_zoo.errors import UserError\n" * (file != "errors.py"))
    assert violations(tmp_path / "vissl_zoo") == []
    planted.write_text(statement + "\n")
    assert len(violations(tmp_path / "vissl_zoo")) == 1


def test_nothing_is_pickled(package, root, tmp_path):
    files = [*package.rglob("*.py"), root / "train.py", root / "hubconf.py"]
    assert [line for file in files for line in unsafe(file)] == []
    planted = tmp_path / "planted.py"
    for statement in (
        "import pickle",
        "from torch import load",
        "torch.save({}, 'x')",
        "from joblib import load",
    ):
        planted.write_text(statement)
        assert len(unsafe(planted)) == 1


def test_files_and_functions_are_short(package, root, tmp_path):
    files = [*package.rglob("*.py"), root / "train.py"]
    assert [file.name for file in files if len(file.read_text().splitlines()) >= LONGEST_FILE] == []
    assert [line for file in files for line in long_functions(file)] == []
    planted = tmp_path / "planted.py"
    planted.write_text('def f():\n    """Doc."""\n' + "    x = 1\n" * (LONGEST_FUNCTION + 1))
    assert len(long_functions(planted)) == 1


def test_no_module_of_models_is_called_as_one_of_timm(package):
    ours = {file.stem for file in (package / "models").glob("*.py")} - {"__init__"}
    theirs = {file.stem for file in Path(timm.models.__file__).parent.glob("*.py")}
    public = {name for name in ours if not name.startswith("_")}
    assert public
    assert not public & theirs
    assert "resnet" in theirs  # that is where they are
