"""Training from the command to the run folder: what it holds, for every method and kind of data."""

import json
import sys

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

import vissl_zoo
from vissl_zoo.errors import UserError
from vissl_zoo.methods import METHODS

LOGGED = {"step", "epoch", "loss", "alignment", "lr", "images_per_second", "kappa_mean", "embedding_std"}
PICTURES = {"gallery.png", "curves.png", "ambiguity.png", "knn.png"}
PICTURES |= {f"uncertainty_knn_{name}.png" for name in ("roc", "risk", "kappa")}


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run, name="method"):
    checkpoint = max((run / "checkpoints").iterdir())
    return load_file(checkpoint / f"{name}.safetensors")


def test_kappa_is_fitted_to_clusters_when_the_training_is_done(
    train_main, demo_arguments, demo_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules["vissl_zoo.training.finish"], "FEWEST_TO_FIT", 100)
    heads = {}
    for flag in ("--fit", "--no-fit"):
        run = tmp_path / flag
        outcome = train_main(*demo_arguments, "--output-dir", run, "--no-report", flag)
        assert outcome.code == 0, outcome.err
        heads[flag] = load_file(run / "export" / "model.safetensors")
        assert ("clusters of 120 training images" in (run / "export" / "README.md").read_text()) == (
            flag == "--fit"
        )
    learnt = load_file(demo_run[0] / "export" / "model.safetensors")
    assert all(torch.equal(heads["--no-fit"][key], value) for key, value in learnt.items())
    changed = {key for key, value in learnt.items() if not torch.equal(heads["--fit"][key], value)}
    assert changed
    assert all(key.startswith("kappa_head.") for key in changed)


def test_a_collapsed_network_is_exported_all_the_same(
    train_main, demo_arguments, demo_run, tmp_path, monkeypatch
):
    finish = sys.modules["vissl_zoo.training.finish"]

    def collapsed(*arguments, **options):
        raise UserError("the model gives nearly the same embedding for every image")

    monkeypatch.setattr(finish, "FEWEST_TO_FIT", 100)
    monkeypatch.setattr(finish, "refit_kappa", collapsed)
    outcome = train_main(*demo_arguments, "--output-dir", tmp_path / "run", "--no-report")
    assert outcome.code == 0, outcome.err
    assert "κ stays as the training learnt it: the model gives nearly the same" in outcome.err
    said, learnt = (
        load_file(run / "export" / "model.safetensors") for run in (tmp_path / "run", demo_run[0])
    )
    assert all(torch.equal(said[key], value) for key, value in learnt.items())


class TestRunFolder:
    def test_files(self, demo_run):
        run, _ = demo_run
        names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
        checkpoint = "checkpoints/step_0000006"
        assert names == {
            "recipe.json",
            "metrics.jsonl",
            f"{checkpoint}/manifest.json",
            *(f"{checkpoint}/{n}" for n in ("method.safetensors", "optimizer.safetensors", "state.json")),
            *(f"export/{n}" for n in ("config.json", "model.safetensors", "heads.safetensors", "README.md")),
            *(f"report/{n}" for n in {"metrics.json", "predictions.parquet", "index.html"} | PICTURES),
        }

    def test_recipe_is_what_was_run(self, demo_run, shapes_folder):
        recipe = json.loads((demo_run[0] / "recipe.json").read_text())
        assert (recipe["batch_size"], recipe["max_steps"], recipe["seed"]) == (16, 6, 0)
        assert recipe["data"]["path"] == str(shapes_folder)
        assert (recipe["method"]["name"], recipe["method"]["latent_dim"]) == ("vi_simsiam", 64)

    def test_log(self, demo_run):
        logged = [line for line in lines(demo_run[0]) if line["step"] > 1]
        assert [line["step"] for line in logged] == [2, 4, 6]
        assert all(line.keys() >= LOGGED for line in logged)
        assert [line["epoch"] for line in logged] == pytest.approx([2 / 7, 4 / 7, 6 / 7], rel=1e-5)
        assert all(line["processes"] == 1 and line["images_per_second"] > 0 for line in logged)
        # the cosine from .05 · 16 / 128, at the steps that began before the lines
        expected = [0.00625 / 2 * (1 + torch.cos(torch.tensor(torch.pi * s / 6)).item()) for s in (1, 3, 5)]
        assert [line["lr"] for line in logged] == pytest.approx(expected, rel=1e-5)

    def test_metrics(self, demo_run):
        metrics = json.loads((demo_run[0] / "report" / "metrics.json").read_text())
        assert metrics["images"] == 40
        shares = (
            metrics["knn"]["top1"],
            metrics["untrained"]["knn"]["top1"],
            metrics["uncertainty"]["knn"]["auroc"]["kappa"]["value"],
        )
        assert all(0 <= share <= 1 for share in shares)
        assert all(-1 <= value <= 1 for value in metrics["ambiguity"]["spearman"].values())
        assert metrics["seconds"] > 0

    def test_report(self, demo_run):
        run, outcome = demo_run
        page = (run / "report" / "index.html").read_text()
        for name in PICTURES:
            assert f'src="{name}"' in page
            with Image.open(run / "report" / name) as picture:
                assert min(picture.size) > 100
        for word in ("kNN top-1", "AUROC", "Spearman", "gallery.png", "index.html", "local-dir:"):
            assert word in outcome.out

    def test_export_gives_the_trained_model_back(self, demo_run):
        run, _ = demo_run
        loaded = timm.create_model(f"local-dir:{run / 'export'}", pretrained=True).eval()
        trained = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=64).eval()
        state = {k.removeprefix("model."): v for k, v in weights(run).items() if k.startswith("model.")}
        trained.load_state_dict(state)
        x = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for a, b in zip(loaded.represent(x), trained.represent(x), strict=True):
            assert torch.equal(a, b)
        heads = load_file(run / "export" / "heads.safetensors")
        checkpoint = weights(run)
        assert {k.split(".")[0] for k in heads} == {"projector", "predictor"}
        assert all(torch.equal(v, checkpoint[k]) for k, v in heads.items())

    def test_export_says_what_it_is(self, demo_run, shapes_folder):
        run, _ = demo_run
        config = json.loads((run / "export" / "config.json").read_text())
        assert config["metrics"] == json.loads((run / "report" / "metrics.json").read_text())
        card = (run / "export" / "README.md").read_text()
        assert str(shapes_folder) in card
        assert "\naccelerate launch train.py --image-size 32 --batch-size 16 " in card


VARIANTS = {
    "paper": ((), ("--method.variant", "paper", "--method.latent-dim", "32"), {"alignment"}),
    "beta": ((), ("--method.variant", "beta", "--method.kappa-map", "exp"), {"alignment"}),
    **{
        name: ((f"{name}_resnet18_cifar10", "--model", name), (), {"alignment", "kappa_fit"})
        for name in METHODS
        if name != "vi_simsiam"
    },
    "dino, ema": (("dino_resnet18_cifar10", "--model", "dino"), ("--method.teacher", "ema"), {"kappa_fit"}),
    "bf16": ((), ("--mixed-precision", "bf16"), {"alignment"}),
    "multi-crop": ((), ("--views.low", "2", "--views.low-size", "16"), {"alignment"}),
    "multi-crop, dino": (
        ("dino_resnet18_cifar10", "--model", "dino"),
        ("--views.low", "1", "--views.low-size", "24"),
        {"teacher_entropy"},
    ),
    "vit": ((), ("--backbone", "test_vit", "--views.low", "1", "--views.low-size", "16"), {"cosine"}),
    "on the fly": ((), ("--data.memory-gib", "1e-9", "--data.workers", "1"), {"alignment"}),
    "from a mapped file": ((), ("--data.memory-gib", "1e-9", "--data.disk-gib", "1"), {"alignment"}),
    "a slice": ((), ("--data.split", "train[:50%]"), {"alignment"}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train_and_export(train_main, shapes_folder, tmp_path, name):
    recipe, flags, logged = VARIANTS[name]
    backbone = ("--backbone", "test_resnet", "--image-size", "32", "--mixed-precision", "no")
    steps = ("--batch-size", "8", "--max-steps", "2", "--log-every", "1", "--no-report")
    where = ("--data.path", shapes_folder, "--output-dir", tmp_path / "run")
    outcome = train_main(*recipe, *backbone, *steps, *where, *flags)
    assert outcome.code == 0, outcome.err
    for line in lines(tmp_path / "run"):
        assert line.keys() >= logged
        assert all(value == value for value in line.values())
    model = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True).eval()
    found = model.represent(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert found.kappa.dtype == torch.float32
    assert (found.kappa > 0).all()
    assert ((found.uncertainty >= 0) & (found.uncertainty <= 1)).all()
    assert all(v.dtype in (torch.float32, torch.int64) for v in weights(tmp_path / "run").values())


def test_an_ema_teacher_is_what_is_exported(train_main, shapes_folder, tmp_path):
    recipe = ("dino_resnet18_cifar10", "--model", "dino", "--backbone", "test_resnet", "--image-size", "32")
    flags = ("--method.teacher", "ema", "--batch-size", "8", "--max-steps", "2", "--no-report")
    run = tmp_path / "run"
    assert train_main(*recipe, *flags, "--data.path", shapes_folder, "--output-dir", run).code == 0
    exported, trained = load_file(run / "export" / "model.safetensors"), weights(run)
    for key, value in exported.items():
        part = "model" if key.startswith("kappa_head") else "teacher"
        assert torch.equal(value, trained[f"{part}.{key}"]), key
    assert not torch.equal(exported["conv1.0.weight"], trained["model.conv1.0.weight"])


def test_a_folder_of_images_without_labels(train_main, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        size = (20 + i, 60 - i) if i % 2 else (40, 40)
        Image.radial_gradient("L").resize(size).rotate(9 * i).convert("RGB").save(folder / f"{i}.jpg")
    run = tmp_path / "run"
    flags = ("--batch-size", "16", "--max-steps", "2", "--method.latent-dim", "16")
    outcome = train_main(*flags, "--data.path", folder, "--output-dir", run)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert not {"knn", "ambiguity"} & metrics.keys()
    assert metrics["images"] == 40
    assert "no kNN accuracy" in outcome.out
    files = {"metrics.json", "predictions.parquet", "index.html", "gallery.png", "curves.png"}
    assert {p.name for p in (run / "report").iterdir()} == files


def test_a_report_that_cannot_be_made_costs_no_model(train_main, shapes_folder, tmp_path):
    """The test split holds no readable image; that comes out when the training is done."""
    import datasets

    data = tmp_path / "data"
    data.mkdir()
    (data / "train.parquet").write_bytes((shapes_folder / "train.parquet").read_bytes())
    columns = {"image": [{"bytes": b"no image", "path": None}] * 5, "label": [0] * 5}
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.Value("int64"))
    datasets.Dataset.from_dict(columns, features=features).to_parquet(data / "test.parquet")
    flags = ("--batch-size", "16", "--max-steps", "1", "--method.latent-dim", "16", "--data.path", data)
    outcome = train_main(*flags, "--output-dir", tmp_path / "run")
    assert outcome.code == 2
    assert "5 of 5 images cannot be read" in outcome.err.splitlines()[-1]
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()
