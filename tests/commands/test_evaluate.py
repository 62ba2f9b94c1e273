"""`vissl-zoo evaluate` from the command line: files, names, and bad input in one line."""

import json

import datasets
import numpy as np
import pytest

from vissl_zoo.commands import COMMANDS, main

QUICK = ("--protocols", "knn")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISSL_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def evaluated(demo_run, shapes_folder, tmp_path_factory):
    run, _ = demo_run
    folder = tmp_path_factory.mktemp("evaluated")
    code = main(
        ["evaluate", str(run), "--data.path", str(shapes_folder), "--output-dir", str(folder), *QUICK]
    )
    assert code == 0
    return folder


def test_files(evaluated):
    assert {"metrics.json", "predictions.parquet", "index.html", "knn.png"} <= {
        p.name for p in evaluated.iterdir()
    }
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert 0 <= metrics["knn"]["top1"] <= 1
    page = (evaluated / "index.html").read_text()
    assert "knn.top1" in page
    assert "http" not in page  # it opens without a network


def test_accuracy_is_that_of_the_predictions(evaluated):
    table = datasets.Dataset.from_parquet(str(evaluated / "predictions.parquet"))
    assert table.column_names[:7] == [
        "row",
        "path",
        "label",
        "knn_pred",
        "linear_pred",
        "kappa",
        "uncertainty",
    ]
    labels, predicted = np.array(table["label"]), np.array(table["knn_pred"])
    metrics = json.loads((evaluated / "metrics.json").read_text())
    assert metrics["knn"]["top1"] == pytest.approx((labels == predicted).mean(), abs=1e-12)
    assert list(table["row"]) == list(range(40))


def test_without_labels_the_rest_is_said_to_be_left_out(demo_run, tmp_path, capsys):
    from PIL import Image

    for i in range(5):
        Image.fromarray(np.full((32, 32, 3), 40 * i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    out = tmp_path / "out"
    assert (
        main(["evaluate", str(demo_run[0]), "--data.path", str(tmp_path), "--output-dir", str(out), *QUICK])
        == 0
    )
    assert "left out: knn" in capsys.readouterr().out
    assert "no labels" in json.loads((out / "metrics.json").read_text())["left_out"]["knn"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["evaluate"], "MODEL"),
        (["evalute"], "did you mean evaluate"),
        (["evaluate", "no_such_model"], "no_such_model"),
        (["evaluate", "test_resnet", "--random-init", "--protocols", "nkk"], "nkk"),
        (["evaluate", "test_resnet", "--random-init", "--data.path", "/no/such"], "/no/such"),
        (
            ["evaluate", "test_resnet", "--random-init", "--data.path", "{data}", "--data.split", "tset"],
            "tset",
        ),
        (["evaluate", "test_resnet", "--random-int"], "--random-int"),
        (["evaluate", "test_resnet", "--random-init", "--seed", "-1"], "--seed"),
        (["evaluate", "test_resnet", "--random-init", "--seed", "4294967296"], "--seed"),
        (["evaluate", "test_resnet", "--random-init", "--image-size", "0"], "--image-size"),
        (["evaluate", "test_vit", "--random-init", "--image-size", "31"], "--image-size 31"),
        (
            [
                "evaluate",
                "test_resnet",
                "--random-init",
                "--data.path",
                "{data}",
                "--data.train-split",
                "trian",
            ],
            "trian",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, named, shapes_folder, capsys):
    assert main([word.format(data=shapes_folder) for word in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert named in error
    assert error.count("\n") == 0


def test_help_names_every_command_and_protocol(capsys):
    from vissl_zoo.evaluation.protocols import PROTOCOLS

    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert all(name in shown for name in PROTOCOLS)


def test_default_folders_do_not_overwrite_each_other(tmp_path):
    from vissl_zoo.cli import DataFlags
    from vissl_zoo.commands.evaluate import Options, default_name

    run = tmp_path / "demo"
    (run / "export").mkdir(parents=True)
    names = {
        default_name(Options(str(run))),
        default_name(Options(str(run), random_init=True)),
        default_name(Options(str(run), data=DataFlags(path="uoft-cs/cifar10"))),
        default_name(Options("resnet50.a1_in1k")),
    }
    assert names == {"demo-shapes", "demo-random-shapes", "demo-cifar10", "resnet50.a1_in1k-shapes"}
    assert default_name(Options(str(run / "export"))) == "demo-shapes"


def test_a_folder_used_again_keeps_nothing_of_before_but_what_is_not_ours(demo_run, shapes_folder, tmp_path):
    (tmp_path / "notes.png").write_bytes(b"mine")
    data = ["--data.path", str(shapes_folder), "--output-dir", str(tmp_path)]
    assert main(["evaluate", str(demo_run[0]), *data, "--protocols", "knn"]) == 0
    assert (tmp_path / "knn.png").is_file()
    assert main(["evaluate", str(demo_run[0]), *data, "--exact", "--protocols", "collapse"]) == 0
    assert not (tmp_path / "knn.png").exists()
    assert "knn" not in json.loads((tmp_path / "metrics.json").read_text())
    assert (tmp_path / "notes.png").read_bytes() == b"mine"


def test_a_page_of_somebody_else_is_not_cleared(tmp_path):
    from vissl_zoo.evaluation.evaluation_run import clear_results

    (tmp_path / "index.html").write_text('<img src="holiday.png">')
    (tmp_path / "holiday.png").write_bytes(b"mine")
    clear_results(tmp_path)
    assert (tmp_path / "holiday.png").exists()
    assert (tmp_path / "index.html").exists()
    clear_results(tmp_path / "nowhere")
