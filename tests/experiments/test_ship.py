"""An export joins the shipped weights: float16, the table, the card; or one line, and nothing has changed."""

import json

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import cards
import ship
import vissl_zoo
from vissl_zoo import weights
from vissl_zoo.hub import Record, export_model, render_card

NAME = "vi_simsiam_resnet18"
NARROW = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}
EVALUATION = {
    "data": "/data/cifar10",
    "split": "test",
    "knn": {"top1": 0.8512, "k": 20},
    "uncertainty": {"knn": {"auroc": {"kappa": {"value": 0.77}}}},
    "corruption": {"images": 3},
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An empty package; the working folder is temporary, too."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def an_export(folder, name=NAME, **kwargs):
    torch.manual_seed(0)
    model = vissl_zoo.create_model(name, **{**NARROW, "latent_dim": 33, "kappa_map": "exp", **kwargs}).eval()
    model.pretrained_cfg.update(input_size=(3, 32, 32), crop_pct=1.0, interpolation="bilinear")
    readme = render_card(model, Record("VI-SimSiam", "cifar10", 32, "accelerate launch train.py"))
    return model, export_model(model, folder / "run" / "export", readme=readme)


def entries(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and "run" not in p.parts)


def test_shipping(package, capsys):
    model, export = an_export(package)
    (package / "metrics.json").write_text(json.dumps(EVALUATION))
    told = ["--description", "for the test", "--note", "JPEG quality 75.", "--evaluation", str(package)]
    assert ship.main([str(export.parent), "--tag", "cifar10", *told]) == 0
    assert "float16 against the export: embedding within" in capsys.readouterr().out
    [(name, row)] = weights.shipped().items()
    assert (name, row.description) == (f"{NAME}.cifar10", "for the test")
    row.verify()
    stored = load_file(row.path)
    assert {v.dtype for v in stored.values()} == {torch.float16, torch.int64}
    assert stored.keys() == model.state_dict().keys()
    assert (row.model_args["latent_dim"], row.model_args["kappa_map"]) == (33, "exp")
    assert (row.pretrained_cfg["input_size"], row.pretrained_cfg["pool_size"]) == ([3, 32, 32], [1, 1])
    assert (row.pretrained_cfg["crop_pct"], row.pretrained_cfg["interpolation"]) == (1.0, "bilinear")
    assert "corruption" not in row.card["metrics"]
    loaded = vissl_zoo.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay={"file": str(row.path)}, **NARROW
    ).eval()
    x = torch.randn(4, 3, 32, 32)
    want, got = model.represent(x), loaded.represent(x)
    torch.testing.assert_close(got.embedding, want.embedding, rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(got.kappa, want.kappa, rtol=1e-2, atol=0)
    card = (package / "model_cards" / f"{name}.md").read_text()
    assert "On `cifar10`, split `test`. JPEG quality 75." in card
    assert f'timm.create_model("{name}", pretrained=True)' in card
    assert ModelCard(card).data.eval_results[0].metric_value == 0.8512
    index = (package / "model_cards" / "README.md").read_text()
    assert f"| [{name}]({name}.md) | 3×32×32 | 85.12 % | 0.770 | for the test |" in index


def test_order_of_tags(package):
    _, export = an_export(package)
    for arguments in (["--tag", "a"], ["--tag", "b"], ["--tag", "c", "--default"], ["--tag", "b"]):
        assert ship.main([str(export), *arguments]) == 0
    assert [name.split(".")[1] for name in weights.shipped()] == ["c", "a", "b"]


def test_another_name_of_the_same_backbone(package):
    """A generic export, and κ fitted to a backbone, ship under a name that has it."""
    _, export = an_export(package, "vi_simsiam", backbone="resnet18")
    assert ship.main([str(export), "--tag", "a", "--model", NAME]) == 0
    [row] = weights.shipped().values()
    assert row.name == f"{NAME}.a"
    assert "backbone" not in row.model_args


def test_tensors_are_shipped_once(package):
    """SimSiam's trunk is that of `detached`: one file, two names; new weights of one leave the other its own."""
    _, export = an_export(package)
    assert ship.main([str(export), "--tag", "a"]) == 0
    also = ["--tag", "a", "--model", "simsiam_resnet18", "--method", "SimSiam"]
    assert ship.main([str(export), *also]) == 0
    first, second = weights.shipped().values()
    assert (first.file, first.sha256) == (second.file, second.sha256)
    assert second.card["record"]["method"] == "SimSiam"
    assert entries(package / "weights") == [f"{NAME}.a.safetensors", "weights.json"]
    before = load_file(second.path)

    config = export / "model.safetensors"
    save_file({k: v + 1 if "kappa" in k else v for k, v in load_file(config).items()}, config)
    assert ship.main([str(export), "--tag", "a"]) == 0
    first, second = weights.shipped().values()
    assert (first.file, second.file) == (f"{NAME}.a.safetensors", "simsiam_resnet18.a.safetensors")
    for row in (first, second):
        row.verify()
    kept, new = load_file(second.path), load_file(first.path)
    assert all(torch.equal(kept[key], before[key]) for key in before)
    assert not all(torch.equal(kept[key], new[key]) for key in new)


def refused(capsys, *arguments):
    assert ship.main([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


def test_refusals_change_nothing(package, capsys, monkeypatch):
    _, export = an_export(package)
    assert "no export" in refused(capsys, package, "--tag", "a")
    assert "--tag 'A.b'" in refused(capsys, export, "--tag", "A.b")
    assert "--tag ''" in refused(capsys, export)
    assert "comes first" in refused(capsys, "--tag", "a")
    assert "say which with --model" in refused(capsys, export, "--tag", "a", "--model", "vi_simsiam")
    assert "is on resnet50, and the export on resnet18" in refused(
        capsys, export, "--tag", "a", "--model", "simsiam_resnet50"
    )
    assert "holds no metrics.json" in refused(
        capsys, export, "--tag", "a", "--evaluation", package / "weights"
    )
    with monkeypatch.context() as patch:
        patch.setattr(ship, "LARGEST", 1000)
        assert "0 MB is the most" in refused(capsys, export, "--tag", "a")
    with monkeypatch.context() as patch:
        patch.setattr(ship, "KAPPA_TOLERANCE", 1e-9)
        assert "in float16 is off by" in refused(capsys, export, "--tag", "a")
    model, _ = an_export(package)
    model.bn1.running_var.fill_(1e6)
    export_model(model, export)
    assert "bn1.running_var is not finite in float16" in refused(capsys, export, "--tag", "a")
    export_model(vissl_zoo.create_model(NAME, **NARROW, kappa_head=False), export)
    assert "has no κ head" in refused(capsys, export, "--tag", "a")
    assert entries(package) == []


def test_what_is_no_export_or_cannot_be_written(package, capsys, monkeypatch):
    _, export = an_export(package)
    monkeypatch.setattr(weights, "FOLDER", package / "none")  # as a folder of another's, to all but root
    assert "cannot be written: " in refused(capsys, export, "--tag", "a")
    (export / "config.json").write_text('{"model_type": "bert"}')
    for told in ([], ["--model", NAME]):
        assert "names None, which is no model of the zoo" in refused(capsys, export, "--tag", "a", *told)


def test_cards_are_renewed(package, capsys):
    _, export = an_export(package)
    ship.main([str(export), "--tag", "a", "--dataset", "me/data", "--note", "Old."])
    (package / "metrics.json").write_text(json.dumps(EVALUATION))
    (package / "model_cards" / "gone.md").write_text("an old card")
    assert ship.main([f"{NAME}.a", "--evaluation", str(package / "metrics.json")]) == 0
    assert entries(package / "model_cards") == ["README.md", f"{NAME}.a.md"]
    card = (package / "model_cards" / f"{NAME}.a.md").read_text()
    assert "85.12 %" in card
    assert "me/data" in card
    assert "Old." in card
    (package / "model_cards" / f"{NAME}.a.md").write_text("by hand")
    assert ship.main([]) == 0
    assert (package / "model_cards" / f"{NAME}.a.md").read_text() == card
    capsys.readouterr()
    for arguments in (["x.y", "--note", "n"], ["--note", "n"], [f"{NAME}.a", "--evaluation", "none"]):
        assert ship.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_cards_of_the_repository_are_those_of_the_table(root, tmp_path):
    """`python experiments/ship.py` would change nothing."""
    written = cards.write_cards(tmp_path)
    assert {p.name for p in (root / "model_cards").iterdir()} == {p.name for p in written}
    for path in written:
        assert (root / "model_cards" / path.name).read_text() == path.read_text()
