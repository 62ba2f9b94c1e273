"""`vissl_zoo.score`: one κ for a photo, whether a command tells it or a person asks the model by timm's own means."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import spearmanr

import vissl_zoo
from vissl_zoo.errors import UserError
from vissl_zoo.hub import export_model
from vissl_zoo.photos.score_table import COLUMNS

ORIENTATION = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", num_classes=0)
    with torch.no_grad():  # a fresh κ head says nearly the same of every image
        for parameter in model.kappa_head.parameters():
            parameter.mul_(3)
    return model.eval()


@pytest.fixture(scope="module")
def picture():
    """picture(height, width): a smooth colour image, another one at each call."""
    rng = np.random.default_rng(0)

    def picture(height: int, width: int) -> Image.Image:
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        return coarse.resize((width, height), Image.Resampling.BICUBIC)

    return picture


@pytest.fixture(scope="module")
def album(picture, tmp_path_factory):
    """A photo of each kind that a naive reader sees otherwise."""
    folder = tmp_path_factory.mktemp("album")
    picture(2400, 1800).save(folder / "large.jpg")
    picture(300, 500).save(folder / "turned.jpg", exif=ORIENTATION)
    grey = np.asarray(picture(200, 260).convert("L")).astype(np.uint16)
    Image.fromarray(grey * 257).save(folder / "sixteen_bits.png")
    picture(240, 180).convert("L").save(folder / "grey.jpg")
    clear = picture(220, 220)
    clear.putalpha(picture(220, 220).convert("L"))
    clear.save(folder / "transparent.png")
    picture(40, 30).save(folder / "small.png")
    return folder


def asked(model, path):
    """κ and uncertainty, by the README's lines."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    x = transform(vissl_zoo.open_image(path))[None]
    with torch.no_grad():
        _, kappa, uncertainty = model.represent(x)
    return kappa.item(), uncertainty.item()


def test_exact_scores_are_what_the_model_says_of_timms_own_transform(model, album):
    table = vissl_zoo.score(album, model, exact=True)
    assert table["error"].isna().all()
    expected = [asked(model, path) for path in table["path"]]
    np.testing.assert_allclose(table[["kappa", "uncertainty"]], expected, rtol=1e-5)


def test_fast_scores_are_nearly_that(model, picture, tmp_path):
    for i in range(60):
        picture(300 + 10 * (i % 7), 700 - 9 * (i % 11)).save(tmp_path / f"{i:02}.jpg")
    kappa = vissl_zoo.score(tmp_path, model)["kappa"]
    expected = vissl_zoo.score(tmp_path, model, exact=True)["kappa"]
    assert (abs(kappa - expected) / expected).median() < 0.01
    assert spearmanr(kappa, expected).statistic > 0.999


def test_the_table_is_that_of_the_file(model, album, tmp_path):
    export_model(model, tmp_path / "export")
    (tmp_path / "bad.jpg").write_text("no image")
    paths = [album / "small.png", str(album / "grey.jpg"), tmp_path / "bad.jpg"]
    by_name = vissl_zoo.score(
        paths, tmp_path / "export", output=tmp_path / "s.parquet", embeddings=tmp_path / "e.npy"
    )
    assert by_name.columns.tolist() == list(COLUMNS)
    assert by_name["path"].tolist() == [str(path) for path in paths]
    assert by_name["width"].tolist()[:2] == [30, 180]
    assert by_name["error"].notna().tolist() == [False, False, True]
    assert by_name["kappa"].isna().tolist() == [False, False, True]
    assert set(by_name["model"]) == {str(tmp_path / "export")}
    written = pd.read_parquet(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(written, by_name, check_dtype=False)
    assert np.load(tmp_path / "e.npy").shape == (3, model.num_features)
    by_model = vissl_zoo.score(paths, model)
    np.testing.assert_array_equal(by_model["kappa"], by_name["kappa"])
    assert set(by_model["model"]) == {"vi_simsiam"}
    assert set(by_model["model_hash"]) == set(by_name["model_hash"])


def test_what_cannot_be_scored_is_one_line(model, album, tmp_path):
    plain = vissl_zoo.create_model("test_resnet", num_classes=0)
    for arguments, options, said in [
        ((album, plain), {}, "test_resnet.* has no κ head"),
        ((album, "no_such_model"), {}, "no_such_model"),
        (("nowhere", model), {}, "nowhere"),
        ((album, model), {"output": "scores.txt"}, "must end in"),
        ((album, model), {"embeddings": tmp_path / "no" / "e.npy"}, "no folder"),
    ]:
        with pytest.raises(UserError, match=said) as raised:
            vissl_zoo.score(*arguments, **options)
        assert "\n" not in str(raised.value)


def test_pixels_are_measured_and_files_are_known(model, picture, tmp_path):
    picture(200, 300).save(tmp_path / "good.png")
    Image.new("RGB", (120, 90), "grey").save(tmp_path / "nothing.png")
    (tmp_path / "same.png").write_bytes((tmp_path / "good.png").read_bytes())
    (tmp_path / "torn.png").write_bytes(b"no image")
    output = tmp_path / "s.parquet"
    table = vissl_zoo.score(tmp_path, model, output=output).set_index("path")
    table.index = [str(path).rsplit("/", 1)[-1] for path in table.index]
    assert table["content_hash"]["good.png"] == table["content_hash"]["same.png"]
    assert table["content_hash"].nunique() == 3  # "" where the file is no image
    assert table["issue"]["nothing.png"] == "blank"
    assert table.loc["torn.png", ["brightness", "contrast", "sharpness"]].isna().all()
    assert table.loc["good.png", ["brightness", "contrast", "sharpness"]].gt(0).all()
    again = vissl_zoo.score(tmp_path, model, output=output)
    pd.testing.assert_frame_equal(again, table.reset_index(names="path").assign(path=again["path"]))
