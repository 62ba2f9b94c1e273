"""What the tests of the benchmarks share: their modules, which lie outside the package, and a scripted parent."""

import importlib
import sys
from pathlib import Path

import pytest

from vissl_zoo import training

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def load():
    """load(name) -> a module of benchmarks/ or of this folder, importable by name in child processes, too."""
    folders = [str(BENCHMARKS), str(Path(__file__).parent)]
    sys.path[:0] = folders
    yield importlib.import_module
    for folder in folders:
        sys.path.remove(folder)


class Parent:
    """The parent's end of a contestant's connection, in this process: asks for turns, then for the end."""

    def __init__(self, turns):
        self.asked, self.said = [*[0.0] * turns, None], []

    def recv(self):
        return self.asked.pop(0)

    def send(self, message):
        self.said.append(message)


@pytest.fixture
def contest(load, monkeypatch, train_module):
    """contest(target, *arguments) -> (info, turns): a contestant run in this process for two turns of one unit."""
    contestants = load("contestants")
    monkeypatch.setattr(training, "load_images", training.load_images)  # which contestants replace
    monkeypatch.setattr(train_module, "fit", train_module.fit)

    def contest(target, *arguments):
        from accelerate.state import AcceleratorState

        parent = Parent(2)
        AcceleratorState._reset_state(reset_partial_state=True)
        target(contestants.Turns(parent), *arguments)
        AcceleratorState._reset_state(reset_partial_state=True)
        (kind, info), *turns = parent.said
        assert kind == "ready"
        assert [kind for kind, _ in turns] == ["turn"] * 2
        return info, [turn for _, turn in turns]

    return contest


@pytest.fixture
def photo_folder(load, tmp_path):
    """Three generated photos."""
    return str(load("scoring").write_photos(tmp_path / "photos", 3))
