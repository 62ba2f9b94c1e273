"""What a person types finds its model: a run, an export, a name; and what does not is one line."""

import pytest
import torch

from vissl_zoo.errors import UserError
from vissl_zoo.inference import load_model


def test_run_and_export_folder_give_the_same_model(demo_run):
    run, _ = demo_run
    by_run, by_export = load_model(str(run)), load_model(str(run / "export"))
    for name, tensor in by_run.model.state_dict().items():
        assert torch.equal(tensor, by_export.model.state_dict()[name])
    assert by_run.image_size == 32  # what it was trained at, and not timm's 224
    assert {"projector", "predictor"} == {name.split(".")[0] for name in by_run.heads}
    x = torch.randn(2, 3, 32, 32)
    assert by_run.model.represent(x).kappa.shape == (2,)


def test_a_timm_name_has_no_kappa_and_random_weights_repeat():
    first, second = (load_model("test_resnet", random_init=True) for _ in range(2))
    assert getattr(first.model, "kappa_head", None) is None
    assert first.heads is None
    assert "random" in first.name
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert load_model("test_resnet", random_init=True, image_size=48).image_size == 48


def test_random_weights_of_an_export_are_not_its_own(demo_run):
    run, _ = demo_run
    trained, floor = load_model(str(run)), load_model(str(run), random_init=True)
    pairs = zip(trained.model.parameters(), floor.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert floor.heads is None


# A ResNet-50 is larger than what the package ships.
@pytest.mark.parametrize("name", ["no_such_model", "vi_simsiam_resnet50", "local-dir:/no/such/folder"])
def test_what_cannot_be_loaded_is_one_line(name):
    with pytest.raises(UserError) as caught:
        load_model(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_export(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(str(tmp_path))


def test_a_labelled_split_goes_before_an_unlabelled_test_split(tmp_path):
    import datasets
    from PIL import Image

    from vissl_zoo.inference import open_tables

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    for split, labels in {"train": [0, 1], "validation": [1, 0], "test": [-1, -1]}.items():
        columns = {"image": [Image.new("RGB", (16, 16))] * 2, "label": labels}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / f"{split}.parquet")
    train, test = open_tables(str(tmp_path))
    assert (train.split, test.split) == ("train", "validation")
    assert open_tables(str(tmp_path), split="test")[1].split == "test"


def test_measuring_on_the_split_to_learn_from_is_said(shapes_folder, caplog):
    from vissl_zoo.inference import open_tables

    train, test = open_tables(str(shapes_folder), split="train")
    assert train is None
    assert len(test) == 120
    assert "--data.split train" in caplog.text
    caplog.clear()
    assert open_tables(str(shapes_folder))[0] is not None
    assert not caplog.text


def test_parts_of_a_split_are_learnt_from_and_measured_on(shapes_folder, caplog):
    from vissl_zoo.errors import UserError
    from vissl_zoo.inference import open_tables

    train, test = open_tables(str(shapes_folder), train_split="train[:90%]", split="train[90%:]")
    assert (len(train), len(test)) == (108, 12)
    for learnt, measured, shared in (("train", "train[90%:]", 12), ("train[:60]", "train[50:70]", 10)):
        with pytest.raises(UserError, match=f"{shared} images of --data.split .* also among those to learn"):
            open_tables(str(shapes_folder), train_split=learnt, split=measured)
    with pytest.raises(UserError, match="trian"):
        open_tables(str(shapes_folder), train_split="trian[:60]", split="train[60:]")
    assert not caplog.text
    assert open_tables(str(shapes_folder), train_split="train[:]", split="train")[0] is None
    assert "also the split to learn from" in caplog.text


def test_the_default_to_measure_on_is_not_the_split_to_learn_from(tmp_path, shapes_folder):
    from vissl_zoo.errors import UserError
    from vissl_zoo.inference import open_tables

    (tmp_path / "val.parquet").symlink_to(shapes_folder / "train.parquet")
    (tmp_path / "test.parquet").symlink_to(shapes_folder / "test.parquet")
    train, test = open_tables(str(tmp_path), train_split="val[:50%]")
    assert (train.split, test.split) == ("validation[:50%]", "test")
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(UserError, match="there is no split to measure on"):
        open_tables(str(tmp_path), train_split="val[:50%]")
