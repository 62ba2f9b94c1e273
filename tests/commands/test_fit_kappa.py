"""`vissl-zoo fit-kappa` from the command line: the export, the report, and bad input in one line."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import vissl_zoo
from vissl_zoo.commands import main
from vissl_zoo.hub import export_model
from vissl_zoo.inference import load_model

QUICK = ("--views", "2", "--steps", "15", "--data.workers", "1", "--image-size", "32")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISSL_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def exported(shapes_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    arguments = ["--model", "test_resnet", "--random-init", "--data.path", str(shapes_folder)]
    assert main(["fit-kappa", *arguments, "--output-dir", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        shape = (30 + i, 60 - i, 3) if i % 4 else (30 + i, 60 - i)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_export_loads_with_timm_and_keeps_the_trunk(exported):
    model = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    trunk = load_model("test_resnet", random_init=True).model.state_dict()
    assert all(torch.equal(model.state_dict()[k], v) for k, v in trunk.items())
    said = model.represent(torch.randn(2, 3, 32, 32))
    assert said.embedding.shape == (2, 96)
    assert said.kappa.shape == said.uncertainty.shape == (2,)
    assert model.kappa_head.latent_dim == 96
    config = json.loads((exported / "config.json").read_text())
    assert config["architecture"] == "kappa"
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert load_model(str(exported)).image_size == 32


def test_report_shows_kappa_beside_the_scores_that_need_no_training(exported):
    report = exported / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    areas = metrics["uncertainty"]["knn"]["auroc"]
    assert areas.keys() >= {"kappa", "norm", "knn_distance", "two_view_cosine", "max_probability"}
    assert all(0 <= area["value"] <= 1 for area in areas.values())
    assert metrics["fit_kappa"]["images"] == 120
    assert metrics["fit_kappa"]["held_out_images"] == 12
    assert metrics["images"] == 40
    assert "fit_kappa.gain" in (report / "index.html").read_text()
    assert {"gallery.png", "kappa.png"} <= {p.name for p in report.iterdir()}


def test_card_has_the_command_and_the_figures(exported):
    card = (exported / "README.md").read_text()
    metrics = json.loads((exported / "report" / "metrics.json").read_text())
    assert "vissl-zoo fit-kappa --model test_resnet --random-init" in card
    assert f"| κ | {metrics['uncertainty']['knn']['auroc']['kappa']['value']:.3f} (" in card
    assert f"{metrics['fit_kappa']['cross_entropy']:.3f} nats" in card
    assert json.loads((exported / "config.json").read_text())["metrics"]["fit_kappa"]["images"] == 120


def test_evaluate_takes_the_export(exported, shapes_folder, tmp_path):
    arguments = [str(exported), "--data.path", str(shapes_folder), "--output-dir", str(tmp_path)]
    assert main(["evaluate", *arguments, "--protocols", "gallery"]) == 0
    kappa = json.loads((tmp_path / "metrics.json").read_text())["gallery"]["kappa"]
    assert kappa["lowest"] > 0


def test_a_folder_of_photos_without_labels(photos, tmp_path, capsys):
    out = tmp_path / "out" / "fitted"
    arguments = ["--model", "test_resnet", "--random-init", "--data.path", str(photos)]
    assert main(["fit-kappa", *arguments, "--output-dir", str(out), *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "fitted to 20 images, 2 views of each; on 2 of them" in shown
    assert "AUROC" not in shown
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    gain = metrics["fit_kappa"]["constant_cross_entropy"] - metrics["fit_kappa"]["cross_entropy"]
    assert metrics["fit_kappa"]["gain"] == pytest.approx(gain)
    assert f"{metrics['fit_kappa']['constant_cross_entropy']:.3f} with one κ for all" in shown
    assert (out / "report" / "gallery.png").is_file()


def test_labelled_images_of_one_split_are_measured_on_a_tenth_apart(shapes_folder, tmp_path):
    path = shapes_folder / "train.parquet"
    arguments = ["--model", "test_resnet", "--random-init", "--data.path", str(path)]
    assert main(["fit-kappa", *arguments, "--output-dir", str(tmp_path), *QUICK]) == 0
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["fit_kappa"]["images"] == 108
    assert metrics["images"] == 12


def test_limit_and_no_report(shapes_folder, tmp_path):
    arguments = [
        "--model",
        "test_resnet",
        "--random-init",
        "--data.path",
        str(shapes_folder),
        "--limit",
        "30",
    ]
    assert main(["fit-kappa", *arguments, "--no-report", "--output-dir", str(tmp_path), *QUICK]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["metrics"]["fit_kappa"]["images"] == 30


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"--model": None}, "--model"),
        ({"--output-dir": None}, "--output-dir"),
        ({"--model": "no_such_model"}, "no_such_model"),
        ({"--data.path": "/no/such"}, "/no/such"),
        ({"--views": "1"}, "--views"),
        ({"--steps": "0"}, "--steps"),
        ({"--lr": "0"}, "--lr"),
        ({"--seed": "4294967296"}, "--seed"),
        ({"--veiws": "3"}, "--veiws"),
        ({"--limit": "4"}, "10 images or more; 4"),
    ],
)
def test_bad_input_is_one_line(changed, named, shapes_folder, tmp_path, capsys):
    good = {
        "--model": "test_resnet",
        "--data.path": str(shapes_folder),
        "--output-dir": str(tmp_path / "out"),
    }
    flags = {k: v for k, v in {**good, **changed}.items() if v is not None}
    assert main(["fit-kappa", "--random-init", *(word for flag in flags.items() for word in flag)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vissl-zoo:")
    assert named in error


def test_a_dino_model_is_refused_before_the_work(shapes_folder, tmp_path, capsys):
    model = vissl_zoo.create_model(
        "dino", backbone="test_resnet", bottleneck_dim=6, prototypes=8, num_classes=0
    )
    export_model(model, tmp_path / "dino")
    arguments = ["--model", str(tmp_path / "dino"), "--data.path", str(shapes_folder)]
    assert main(["fit-kappa", *arguments, "--output-dir", str(tmp_path / "out"), *QUICK]) == 2
    assert "DINO" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_report_of_another_fit_is_left(exported, shapes_folder, tmp_path):
    out = shutil.copytree(exported, tmp_path / "out")
    assert (out / "report" / "metrics.json").is_file()
    arguments = ["--model", "test_resnet", "--random-init", "--data.path", str(shapes_folder)]
    arguments += ["--limit", "30", "--no-report", "--output-dir", str(out), *QUICK]
    assert main(["fit-kappa", *arguments]) == 0
    assert not (out / "report" / "metrics.json").exists()


def test_an_output_folder_that_cannot_be_made(shapes_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["--model", "test_resnet", "--random-init", "--data.path", str(shapes_folder)]
    assert main(["fit-kappa", *arguments, "--output-dir", str(tmp_path / "file" / "out")]) == 2
    assert "--output-dir" in capsys.readouterr().err
