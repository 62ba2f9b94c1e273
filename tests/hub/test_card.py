"""The model card: metadata that the Hub reads, code that runs, figures that were measured."""

import re

import pytest

import vissl_zoo
from vissl_zoo.hub.card import FIGURES, render_card

METRICS = {
    "knn_top1": 0.61234,
    "knn_top1_untrained": 0.3,
    "auroc_kappa_knn": 0.7,
    "spearman_uncertainty_ambiguity": -0.05,
    "seconds": 99,
}
SMALL = {"backbone": "test_resnet", "latent_dim": 24}


def card(name="vi_simsiam", metrics=None, data="shapes", command="accelerate launch train.py", **model_args):
    model = vissl_zoo.create_model(name, **(model_args or SMALL))
    return render_card(model, "VI-SimSiam", metrics, 32, data, command)


def metadata(text: str) -> dict[str, list[str]]:
    """The block between the two rules at the top, which holds scalars and lists of words."""
    start, block, _ = text.split("---\n", 2)
    assert start == ""
    found: dict[str, list[str]] = {}
    key = ""
    for line in block.splitlines():
        if line.startswith("- "):
            found[key].append(line[2:])
        else:
            key, _, value = line.partition(":")
            found[key] = [value.strip()] if value.strip() else []
    return found


def test_metadata():
    found = metadata(card())
    assert found["library_name"] == ["timm"]
    assert found["pipeline_tag"] == ["image-feature-extraction"]
    assert "vissl_zoo" in found["tags"]


def test_says_what_the_model_is():
    text = card(data="org/photos")
    assert "# vi_simsiam (test_resnet)\n" in text
    for fact in ("VI-SimSiam", "`org/photos`", "32 pixels", "(B, 96), (B,), (B,)", "d = 24"):
        assert fact in text
    assert "# simsiam_resnet18\n" in card("simsiam_resnet18", latent_dim=8)


def test_uncertainty_is_the_methods_own():
    spherical = card()
    categorical = card("dino", backbone="test_resnet", prototypes=8, bottleneck_dim=6)
    assert "(d-1)/(d-1+κ)" in spherical
    assert "entropy" not in spherical
    assert "entropy" in categorical
    assert "(d-1)/(d-1+κ)" not in categorical


def test_figures_are_rounded_and_in_a_table():
    text = card(metrics=METRICS)
    rows = re.findall(r"^\| (.+) \| (-?[\d.]+) \|$", text, re.M)
    assert dict(rows) == {
        FIGURES["knn_top1"]: "0.612",
        FIGURES["knn_top1_untrained"]: "0.300",
        FIGURES["auroc_kappa_knn"]: "0.700",
        FIGURES["spearman_uncertainty_ambiguity"]: "-0.050",
    }
    header = text.index("| measured at the end of training | |\n|---|---|\n| ")
    assert text[header - 2 : header] == "\n\n"  # a table needs an empty line before it


@pytest.mark.parametrize("metrics", [None, {}, {"knn_top1": None, "seconds": 3}])
def test_without_figures_there_is_no_table(metrics):
    assert "measured at the end" not in card(metrics=metrics)


def test_a_figure_of_zero_is_a_figure():
    assert f"| {FIGURES['knn_top1']} | 0.000 |" in card(metrics={"knn_top1": 0.0})


def test_command_and_data_are_told_as_they_are():
    command = "accelerate launch train.py --data.path 'my <photos> & more'"
    assert f"```\n{command}\n```" in card(command=command, data="a<b>&c")
    assert "`a<b>&c`" in card(data="a<b>&c")


def test_the_code_in_it_runs(tmp_path):
    import timm
    from PIL import Image

    from vissl_zoo.hub import export_model

    model = vissl_zoo.create_model("vi_simsiam", **SMALL)
    text = card()
    export_model(model, tmp_path / "export", readme=text)
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {"photos": [Image.new("RGB", (40, 60), colour) for colour in ("red", "green")]}
    exec(code.replace("PATH/TO/THIS/FOLDER", str(tmp_path / "export")), names)
    assert names["embedding"].shape == (2, 96)
    assert names["kappa"].shape == names["uncertainty"].shape == (2,)
    assert timm is not None
