"""One photo has one κ: by `score`, by `evaluate`, and by `represent` on timm's own transform, as the README has it."""

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import spearmanr

import vissl_zoo
from vissl_zoo.commands import main

MODEL = "vi_simsiam_resnet18"
QUARTER_TURN, ORIENTATION = 6, 0x0112


def scene(height, width, seed):
    """An RGB image of soft patches with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(soft + rng.integers(-12, 13, soft.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Large, rotated, 16-bit, gray and transparent photos, and some small ones."""
    folder = tmp_path_factory.mktemp("photos")
    for i, (height, width) in enumerate([(1500, 2000), (2000, 1500), (1200, 1201)]):
        Image.fromarray(scene(height, width, i)).save(folder / f"large-{i}.jpg", quality=90)
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    Image.fromarray(scene(900, 1600, 4)).save(folder / "rotated.jpg", exif=exif)
    gray = scene(300, 400, 5)[..., 0]
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257 - 100).save(folder / "deep.png")
    alpha = np.dstack([scene(260, 300, 6), gray[:260, :300]])
    Image.fromarray(alpha).save(folder / "transparent.png")
    Image.fromarray(scene(40, 50, 7)).convert("P").save(folder / "palette.png")
    Image.fromarray(scene(32, 32, 8)).save(folder / "small.png")
    return folder


def by_hand(paths):
    """κ and uncertainty (2, N) as the README computes them."""
    model = timm.create_model(MODEL, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    said = []
    for path in paths:
        with torch.no_grad():
            _, kappa, uncertainty = model.represent(transform(vissl_zoo.open_image(path))[None])
        said.append([kappa.item(), uncertainty.item()])
    return np.array(said).T


def scored(folder, output, *flags):
    """Paths, κ and uncertainty of `vissl-zoo score`."""
    arguments = ["score", folder, "--model", MODEL, "--output", output, *flags]
    assert main([str(a) for a in arguments]) == 0
    table = datasets.Dataset.from_parquet(str(output))
    return table["path"][:], np.array([table["kappa"][:], table["uncertainty"][:]])


@pytest.mark.parametrize("flags, tolerance", [(["--exact"], 1e-5), ([], 0.05)])
def test_score_agrees_with_timms_own_transform(photos, tmp_path, flags, tolerance, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths, found = scored(photos, tmp_path / "scores.parquet", *flags)
    assert len(paths) == 9
    np.testing.assert_allclose(found, by_hand(paths), rtol=tolerance)


def test_evaluate_agrees_with_score(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    paths, found = scored(photos, tmp_path / "scores.parquet")
    vissl_zoo.evaluate(MODEL, photos, protocols=["gallery"], output_dir=tmp_path / "out")
    table = datasets.Dataset.from_parquet(str(tmp_path / "out" / "predictions.parquet"))
    names = [str(photos / path) for path in table["path"]]
    order = [names.index(path) for path in paths]
    np.testing.assert_array_equal(
        np.array(table["kappa"], dtype=np.float32)[order], found[0].astype(np.float32)
    )


def test_the_fast_way_ranks_many_photos_alike(root, tmp_path, monkeypatch):
    """Of real photos: half of all κ are within 1 %, and the order is the same but for neighbours."""
    photos = root.parent / "shared" / "data" / "photos"
    if not photos.is_dir():
        pytest.skip("the photos are not at hand")
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted(photos.iterdir())[:300]:
        (some / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    fast, exact = (
        scored(some, tmp_path / f"{n}.parquet", *f)[1][0] for n, f in (("fast", []), ("exact", ["--exact"]))
    )
    assert np.median(np.abs(fast / exact - 1)) <= 0.01
    assert spearmanr(fast, exact).statistic >= 0.999
