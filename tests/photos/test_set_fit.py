"""What is fitted to a set of photos: its column, where it lies, when it is used again, and what is said of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.stats import spearmanr

import vissl_zoo
from vissl_zoo.errors import UserError

COUNT = 210


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Photos of three kinds and, with the higher numbers, ever more of another kind in them."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("album")
    kinds = rng.integers(0, 256, (3, 4, 4, 3))
    for i in range(COUNT):
        own, other = rng.permutation(3)[:2]
        mixed = kinds[own] + 0.5 * i / COUNT * (kinds[other] - kinds[own]) + rng.normal(0, 10, (4, 4, 3))
        picture = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
        picture.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return vissl_zoo.create_model("test_resnet", num_classes=0).eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0).eval()


def test_a_set_is_asked_and_ordered_by_its_answer(album, model):
    table = vissl_zoo.score(album, model)
    told = table["set_uncertainty"]
    assert told.dtype == np.float32
    assert told.between(0, 1).all()
    np.testing.assert_allclose(table["percentile"], 100 * (told.rank() - 1) / (COUNT - 1))
    assert list(table.columns).index("set_uncertainty") + 1 == list(table.columns).index("percentile")
    plain = vissl_zoo.score(album, model, fit=False)
    assert "set_uncertainty" not in plain
    np.testing.assert_allclose(plain["kappa"], table["kappa"], rtol=1e-5)  # the head is the model's own


def test_exact_asks_the_set_only_when_told(album, model):
    assert "set_uncertainty" not in vissl_zoo.score(album, model, exact=True)
    assert "set_uncertainty" in vissl_zoo.score(album, model, exact=True, set_uncertainty=True)


def test_a_backbone_without_kappa_is_fitted_once(album, backbone, tmp_path, capsys):
    output, file = tmp_path / "s.parquet", tmp_path / "s.kappa.safetensors"
    options = {"output": output, "image_size": 40}
    first = vissl_zoo.score(album, backbone, **options)
    said = capsys.readouterr().err
    assert "κ was fitted to 210 photos. On 21 of them, held out, its rank correlation" in said
    assert {"head.mlp.fc1.weight", "reference.bank"} <= load_file(file).keys()
    assert spearmanr(first["set_uncertainty"], range(COUNT)).statistic > 0.2
    assert not hasattr(backbone, "kappa_head")

    before = file.stat().st_mtime_ns
    (tmp_path / "more").mkdir()
    Image.new("RGB", (48, 40), "red").save(tmp_path / "more" / "red.png")
    second = vissl_zoo.score([album, tmp_path / "more"], backbone, **options)
    said = capsys.readouterr().err
    assert "taken from" in said
    assert "210 of 211 images were scored before" in said
    assert file.stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(first.drop(columns="percentile"), second[:COUNT].drop(columns="percentile"))
    assert second["set_uncertainty"].notna().all()

    vissl_zoo.score(album, backbone, refit=True, **options)
    assert file.stat().st_mtime_ns != before


def test_a_fit_that_cannot_be_used_is_made_anew(album, backbone, model, tmp_path, capsys):
    output, file = tmp_path / "s.parquet", tmp_path / "s.kappa.safetensors"
    file.write_bytes(b"no tensors")
    vissl_zoo.score(album, model, output=output)
    assert "s.kappa.safetensors cannot be read: κ is fitted anew" in capsys.readouterr().err
    table = vissl_zoo.score(album, backbone, output=output, image_size=40)
    assert "is of another model or other settings: κ is fitted anew" in capsys.readouterr().err
    assert table["model_hash"].nunique() == 1


def test_views_are_asked_besides(album, model):
    plain, seen = vissl_zoo.score(album, model), vissl_zoo.score(album, model, views=2)
    np.testing.assert_allclose(plain["kappa"], seen["kappa"], rtol=1e-3)  # in batches of another size
    assert not np.allclose(plain["set_uncertainty"], seen["set_uncertainty"])
    assert spearmanr(plain["set_uncertainty"], seen["set_uncertainty"]).statistic > 0.5


def test_a_failed_photo_has_no_answer(album, model, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = vissl_zoo.score([album, tmp_path], model)
    assert table["set_uncertainty"].isna().tolist() == [False] * COUNT + [True]


def test_too_few_photos(album, backbone, model):
    few = [album / f"{i:03}.png" for i in range(9)]
    with pytest.raises(UserError, match="10 images or more, not 9"):
        vissl_zoo.score(few, backbone)
    assert "set_uncertainty" not in vissl_zoo.score(few, model)
    with pytest.raises(UserError, match="200 images or more"):
        vissl_zoo.score(few, model, views=1)


def test_photos_that_cannot_be_read_or_are_all_the_same(model, backbone, tmp_path, capsys):
    for i in range(COUNT):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    table = vissl_zoo.score(tmp_path, model)
    assert "nothing is fitted to these photos: " in capsys.readouterr().err
    assert table["error"].notna().all()
    with pytest.raises(UserError, match="be read"):
        vissl_zoo.score(tmp_path, backbone)
    for i in range(COUNT):
        Image.new("RGB", (40, 40), "red").save(tmp_path / f"{i}.png")
    table = vissl_zoo.score(tmp_path, model)
    assert table["set_uncertainty"].nunique() == 1
