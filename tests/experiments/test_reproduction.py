"""docs/reproduction.json is gathered from folders of evaluations, and says so where there is none."""

import json

import reproduction


def test_evaluations_of_one_model_are_joined_and_others_left_out(tmp_path):
    name = reproduction.MODELS[0]
    for folder, metrics in {
        name: {"knn": {"top1": 0.5}, "data": "cifar10"},
        f"{name}-2": {"transfer": {"dtd10": {"top1": 0.25}}},
        f"{name}_paper": {"knn": {"top1": 0.25}},
        "resnet18": {"knn": {"top1": 1}},
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metrics.json").write_text(json.dumps(metrics))
    assert reproduction.collect(tmp_path) == {
        name: {"knn": {"top1": 0.5}, "transfer": {"dtd10": {"top1": 0.25}}},
        f"{name}_paper": {"knn": {"top1": 0.25}},
    }


def test_a_folder_without_evaluations_is_one_line(tmp_path, capsys):
    assert reproduction.main([str(tmp_path)]) == 2
    assert "holds no evaluation of vi_simsiam_resnet18.cifar10" in capsys.readouterr().err
