"""The model card: metadata that the Hub reads, code that runs, figures that were measured."""

import re

import pytest
import timm
from huggingface_hub import ModelCard

import vissl_zoo
from vissl_zoo.hub import Record, export_model, render_card
from vissl_zoo.hub.card import Place, read_record

AREA = {"value": 0.76543, "p_value": 0.000999, "ci_low": 0.75, "ci_high": 0.78}
EVALUATION = {
    "data": "/home/me/cifar10",
    "split": "test",
    "images": 10000,
    "knn": {"top1": 0.8512, "k": 20},
    "linear": {"top1": 0.9, "top5": None},
    "retrieval": {"recall_at_1": 0.81, "r_auroc": {**AREA, "value": 0.7}},
    "augmentation": {"images": 2000, "normal": {"mean": 850.0, "std": 99.0}},
    "uncertainty": {
        "knn": {"auroc": {"kappa": AREA, "norm": {**AREA, "value": 0.6}}, "aurc": 0.05},
        "linear": {"auroc": {"kappa": {"value": 0.7}, "norm": None}},
    },
}
REPORT = {  # of a training
    "knn": {"top1": 0.61234},
    "untrained": {"knn": {"top1": 0.3}},
    "uncertainty": {"knn": {"auroc": {"kappa": {**AREA, "value": 0.7}}}},
    "ambiguity": {"spearman": {"kappa": -0.05, "untrained": None}},
    "seconds": 99,
}
SMALL = {"backbone": "test_resnet", "latent_dim": 24}


def card(name="vi_simsiam", metrics=None, data="shapes", command="accelerate launch train.py", **model_args):
    model = vissl_zoo.create_model(name, **(model_args or SMALL))
    return render_card(model, Record("VI-SimSiam", data, 32, command), metrics=metrics)


def measured(metrics, **options):
    model = vissl_zoo.create_model("vi_simsiam", **SMALL)
    return render_card(model, Record("VI-SimSiam", "shapes"), metrics=metrics, **options)


def metadata(text):
    return ModelCard(text).data.to_dict()


def test_metadata():
    found = metadata(card())
    assert (found["library_name"], found["pipeline_tag"]) == ("timm", "image-feature-extraction")
    assert found["license"] == "apache-2.0"
    assert "vissl_zoo" in found["tags"]
    assert "datasets" not in found
    assert "model-index" not in found


@pytest.mark.parametrize(
    "data, dataset, expected",
    [("uoft-cs/cifar10", None, ["uoft-cs/cifar10"]), ("../cifar10", None, None), ("x", "a/b", ["a/b"])],
)
def test_datasets_are_names_of_the_hub(data, dataset, expected):
    model = vissl_zoo.create_model("vi_simsiam", **SMALL)
    found = metadata(render_card(model, Record("VI-SimSiam", data), dataset=dataset))
    assert found.get("datasets") == expected


def test_a_folder_here_is_no_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "photos").mkdir(parents=True)
    assert "datasets" not in metadata(card(data="org/photos"))


def test_says_what_the_model_is():
    text = card(data="org/photos")
    assert "# vi_simsiam (test_resnet)\n" in text
    for fact in ("VI-SimSiam", "`org/photos`", "32 pixels", "(B, 96), (B,), (B,)", "d = 24"):
        assert fact in text
    assert "# simsiam_resnet18\n" in card("simsiam_resnet18", latent_dim=8)


def test_a_timm_model_with_a_kappa_head():
    model = vissl_zoo.add_kappa_head(timm.create_model("test_resnet", num_classes=0), latent_dim=9)
    text = render_card(model, Record("a fitted κ"))
    assert "# kappa (test_resnet.r160_in1k)\n" in text
    assert "d = 9" in text


def test_a_model_without_a_kappa_head_promises_none():
    text = card(**SMALL, num_classes=5)
    assert "no κ head" in text
    assert "represent" not in text
    assert "# (B, 5)" in text


def test_uncertainty_is_the_methods_own():
    spherical = card()
    categorical = card("dino", backbone="test_resnet", prototypes=8, bottleneck_dim=6)
    assert "(d-1)/(d-1+κ)" in spherical
    assert "entropy" not in spherical
    assert "entropy" in categorical
    assert "(d-1)/(d-1+κ)" not in categorical


def test_the_figures_of_a_report():
    text = card(metrics=REPORT)
    assert "On `shapes`.\n" in text
    for row in (
        "| kNN top-1 accuracy | 61.23 % |",
        "| kNN top-1 accuracy before training | 30.00 % |",
        "| Spearman of uncertainty with the known ambiguity | -0.050 |",
        "| κ | 0.700 (0.750 to 0.780), p = 0.001 |",
    ):
        assert f"\n{row}\n" in text
    header = text.index("| measure | value |\n|---|---|\n| ")
    assert text[header - 2 : header] == "\n\n"  # a table needs an empty line before it


@pytest.mark.parametrize("metrics", [None, {}, {"knn": {"top1": None}, "seconds": 3}])
def test_without_figures_there_is_no_table(metrics):
    text = card(metrics=metrics)
    assert "## Measured" not in text
    assert "|---|" not in text


def test_a_figure_of_zero_is_a_figure():
    assert "| kNN top-1 accuracy | 0.00 % |" in card(metrics={"knn": {"top1": 0.0}})


def test_an_evaluation_in_tables():
    text = measured(EVALUATION)
    assert "On `cifar10`, split `test`, 10000 images." in text
    assert "/home/me" not in text
    for row in (
        "| kNN top-1 accuracy (k = 20) | 85.12 % |",
        "| linear top-1 accuracy | 90.00 % |",
        "| Recall@1 | 81.00 % |",
        "| R-AUROC: AUROC of κ for Recall@1 | 0.700 (0.750 to 0.780), p = 0.001 |",
        "| AURC of κ, kNN | 0.050 |",
        "| score | kNN correctness | linear correctness |\n|---|---|---|",
        "| κ | 0.765 (0.750 to 0.780), p = 0.001 | 0.700 |",
        "| embedding norm | 0.600 (0.750 to 0.780), p = 0.001 | – |",
        "| none | 850 ± 99 |",
    ):
        assert f"\n{row}\n" in text
    assert "top-5" not in text
    assert "AURC of κ, linear" not in text
    assert "None" not in text
    assert "nan" not in text


def test_the_tables_are_tables():
    """Each has an empty line before it, a rule after its head, and rows as wide as that."""
    text = measured(EVALUATION)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        lines = table.splitlines()
        assert re.fullmatch(r"\|(---\|)+", lines[1])
        assert {line.count("|") for line in lines} == {lines[1].count("|")}


def test_model_index_is_that_of_the_hub():
    data = ModelCard(measured(EVALUATION, place=Place(repo_id="me/model"), dataset="uoft-cs/cifar10")).data
    assert data.model_name == "model"
    found = {r.metric_name: (r.metric_type, r.metric_value) for r in data.eval_results}
    assert found == {
        "kNN top-1 accuracy": ("accuracy", 0.8512),
        "linear top-1 accuracy": ("accuracy", 0.9),
        "Recall@1": ("recall_at_1", 0.81),
        "AUROC of κ for kNN correctness": ("roc_auc", 0.7654),
        "AUROC of κ for linear correctness": ("roc_auc", 0.7),
        "R-AUROC: AUROC of κ for Recall@1": ("roc_auc", 0.7),
    }
    about = {(r.dataset_type, r.dataset_name, r.dataset_split) for r in data.eval_results}
    assert about == {("uoft-cs/cifar10", "cifar10", "test")}


@pytest.mark.parametrize("metrics", [{"data": "d", "knn": {"top1": None}}, {"data": "d"}])
def test_an_evaluation_without_figures(metrics):
    text = measured(metrics)
    assert "model-index" not in text
    assert "|---|" not in text


def test_command_and_data_are_told_as_they_are():
    command = "accelerate launch train.py --data.path 'my <photos> & more'"
    text = card(command=command, data="a<b>&c: #1")
    assert f"```\n{command}\n```" in text
    assert "`a<b>&c: #1`" in text
    assert metadata(text)["vissl_zoo"]["command"] == command


def test_the_record_goes_into_the_card_and_back(tmp_path):
    record = Record("VI-SimSiam", "a: b #c", 64, "train --x 'y'\n--z", "JPEG quality 75.")
    model = vissl_zoo.create_model("vi_simsiam", **SMALL)
    (tmp_path / "README.md").write_text(render_card(model, record), encoding="utf-8")
    assert read_record(tmp_path) == record
    (tmp_path / "README.md").write_text("# by hand\n", encoding="utf-8")
    (tmp_path / "config.json").write_text('{"architecture": "vi_simsiam"}')
    assert read_record(tmp_path) == Record("vi_simsiam")


def test_a_note_stands_beside_the_figures():
    model = vissl_zoo.create_model("vi_simsiam", **SMALL)
    text = render_card(model, Record("VI-SimSiam", note="JPEG quality 75."), metrics=EVALUATION)
    assert "10000 images. JPEG quality 75.\n" in text
    body = text.split("---\n", 2)[2]
    assert body.count("JPEG quality 75.") == 1
    assert "- JPEG quality 75.\n" in render_card(model, Record("VI-SimSiam", note="JPEG quality 75."))


def test_places():
    model = vissl_zoo.create_model("vi_simsiam_resnet18", latent_dim=8)
    record = Record("VI-SimSiam")
    both = render_card(model, record, place=Place("hf-hub:me/m@full", "hf-hub:me/m", "me/m"))
    assert 'timm.create_model("hf-hub:me/m", pretrained=True, num_classes=0)' in both
    assert 'weights = {"hf_hub_id": "me/m@full"}' in both
    full = render_card(model, record, place=Place("hf-hub:me/m@full", None, "me/m"))
    assert "no face of this model that loads without vissl_zoo" in full
    shipped = render_card(model, record, place=Place("vi_simsiam_resnet18.cifar10", shipped=True))
    assert '"vi_simsiam_resnet18", pretrained=True, pretrained_cfg="cifar10")' in shipped
    assert "hf_hub_id" not in shipped


def test_the_code_in_it_runs(tmp_path):
    from PIL import Image

    model = vissl_zoo.create_model("vi_simsiam", **SMALL)
    text = card()
    export_model(model, tmp_path / "export", readme=text)
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {"photos": [Image.new("RGB", (40, 60), colour) for colour in ("red", "green")]}
    exec(code.replace("PATH/TO/THIS/FOLDER", str(tmp_path / "export")), names)
    assert names["embedding"].shape == (2, 96)
    assert names["kappa"].shape == names["uncertainty"].shape == (2,)
