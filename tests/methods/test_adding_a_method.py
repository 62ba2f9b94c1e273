"""The method of docs/adding_a_method.md, as it stands there, is one that trains."""

import importlib.util
import re
import sys

import torch

from vissl_zoo.methods import Method


def test_the_toy_method_of_the_page(root, tmp_path, monkeypatch, build, views):
    page = (root / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "toy.py").write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("toy", tmp_path / "toy.py")
    toy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy", toy)  # its dataclass looks itself up there
    spec.loader.exec_module(toy)
    assert issubclass(toy.Toy, Method)
    assert [r.name for r in toy.RECIPES] == ["toy_resnet18_cifar10"]
    method = toy.Toy(build("simsiam").model, toy.Options(hidden=8)).double()
    objective = method(views(2, 1))
    objective.loss.backward()
    assert all(p.grad is not None for p in method.parameters())
    torch.testing.assert_close(objective.loss, objective.kappa_fit - objective.alignment)
