"""The method of docs/adding_a_method.md, as it stands there, is one that trains and that timm knows."""

import re
import subprocess
import sys

ASK = """
import importlib.util, sys
spec = importlib.util.find_spec("vissl_zoo.methods")
spec.submodule_search_locations.append(sys.argv[1])  # as if the file stood in the folder
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
import timm, torch
from vissl_zoo.methods import RECIPES, Toy
assert RECIPES["toy_resnet18_cifar10"].recipe.lr == 0.2
assert {"toy_resnet18", "toy_vit_small_patch16_224"} <= set(timm.list_models())
method = Toy(timm.create_model("toy", backbone="test_resnet", latent_dim=16), hidden=8)
method([torch.randn(4, 3, 32, 32) for _ in range(2)]).loss.backward()
assert all(p.grad is not None for p in method.parameters())
"""


def test_the_toy_method_of_the_page(root, tmp_path):
    page = (root / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "toy.py").write_text(code, encoding="utf-8")
    outcome = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, str(tmp_path)], capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stderr
