"""Scores are the model's own, in order, whatever the batches; bad images are told and stop nothing."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.inference import central_crop
from vissl_zoo.models import Representation
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.photos.engine import mild_views, score_images


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16).eval()


def write(path, images):
    """A parquet file of PNG images, each uint8 (H, W, 3), or of bytes as they are."""
    rows = []
    for image in images:
        if not isinstance(image, bytes):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            image = buffer.getvalue()
        rows.append({"bytes": image, "path": None})
    features = datasets.Features(image=datasets.Image(decode=False))
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(path)
    return open_images(path)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + i % 5, 36 + i % 7, 3), dtype=np.uint8) for i in range(23)]


@pytest.fixture(scope="module")
def table(pictures, tmp_path_factory):
    return write(tmp_path_factory.mktemp("pictures") / "train.parquet", pictures)


@pytest.fixture(scope="module")
def damaged(pictures, tmp_path_factory):
    images = [*pictures[:4], b"no image", *pictures[5:9], b""]
    return write(tmp_path_factory.mktemp("damaged") / "train.parquet", images)


def together(batches):
    """The batches' columns put together."""
    batches = list(batches)
    arrays = [np.concatenate([batch[i] for batch in batches]) for i in range(5)]
    return (*arrays, [error for batch in batches for error in batch.errors])


def test_scores_are_the_models_own(net, table, pictures):
    rows, embedding, kappa, uncertainty, sizes, errors = together(score_images(net, table, 32, batch_size=5))
    assert rows.tolist() == list(range(23))
    assert errors == [None] * 23
    assert sizes.tolist() == [list(p.shape[:2]) for p in pictures]
    crop = central_crop(net, 32)
    for i, picture in enumerate(pictures):
        pixels = torch.from_numpy(crop.crop(Image.fromarray(picture))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            said = net.represent(crop.normalise(pixels))
        for found, expected in zip((embedding, kappa, uncertainty), said, strict=True):
            assert np.allclose(found[i], expected[0], rtol=0.02, atol=0.01)
    assert embedding.dtype == kappa.dtype == uncertainty.dtype == np.float32


def test_rows_may_be_any_in_any_order(net, table):
    rows = np.array([5, 2, 5, 22])
    found = together(score_images(net, table, 32, rows=rows, batch_size=3))
    everything = together(score_images(net, table, 32))
    assert np.array_equal(found[0], rows)
    assert np.allclose(found[1], everything[1][rows], atol=1e-5)
    assert list(score_images(net, table, 32, rows=np.array([], dtype=int))) == []


@pytest.mark.parametrize("views", [1, 3])
def test_bad_images_are_marked_and_stop_nothing(net, damaged, pictures, views):
    rows, embedding, kappa, uncertainty, sizes, errors = together(
        score_images(net, damaged, 32, batch_size=4, views=views)
    )
    bad = np.isin(rows, [4, 9])
    assert [error is not None for error in errors] == bad.tolist()
    assert all("\n" not in error for error in filter(None, errors))
    assert np.isnan(embedding).all(1).tolist() == bad.tolist()
    assert np.isnan(kappa).tolist() == np.isnan(uncertainty).tolist() == bad.tolist()
    assert (sizes == 0).all(1).tolist() == bad.tolist()


class Fragile(nn.Module):
    """κ is not finite for dark images, the embedding for bright ones; it notes its mode."""

    def __init__(self):
        super().__init__()
        self.kappa_head = KappaHead(2, latent_dim=8)

    def represent(self, x):
        assert not self.training
        mean = x.mean((1, 2, 3))
        nan = torch.tensor(torch.nan)
        kappa = torch.where(mean < -1.5, nan, mean.exp())
        embedding = torch.where(mean > 1.5, nan, mean)[:, None].repeat(1, 2)
        return Representation(embedding, kappa, self.kappa_head.uncertainty(kappa))


@pytest.mark.parametrize("views", [1, 2])
def test_output_that_is_not_finite_is_that_images_error(tmp_path, views):
    table = write(tmp_path / "train.parquet", [np.full((16, 16, 3), v, np.uint8) for v in (0, 100, 255, 120)])
    model = Fragile().train()
    _, embedding, kappa, uncertainty, sizes, errors = together(score_images(model, table, 16, views=views))
    assert [e is not None for e in errors] == [True, False, True, False]
    assert "not finite" in errors[0]
    assert np.isnan(embedding[[0, 2]]).all()
    assert np.isnan(kappa[[0, 2]]).all()
    assert np.isnan(uncertainty[[0, 2]]).all()
    assert np.isfinite(kappa[[1, 3]]).all()
    assert (sizes == 16).all()
    assert model.training  # as it was


def test_a_model_without_kappa_has_embeddings_all_the_same(table):
    model = vissl_zoo.create_model("test_resnet", num_classes=0)
    _, embedding, kappa, uncertainty, _, errors = together(score_images(model, table, 32, views=2))
    assert np.isfinite(embedding).all()
    assert np.isnan(kappa).all()
    assert np.isnan(uncertainty).all()
    assert errors == [None] * 23


@pytest.mark.parametrize("views, batch_size", [(1, 8), (3, 8), (2, None)])
def test_exact_scores_are_the_same_bits_in_any_order_and_company(net, table, views, batch_size):
    first = together(score_images(net, table, 32, exact=True, batch_size=batch_size, views=views, workers=1))
    order = np.random.default_rng(1).permutation(23)
    again = together(score_images(net, table, 32, exact=True, batch_size=batch_size, views=views, rows=order))
    alone = together(
        score_images(net, table, 32, exact=True, batch_size=batch_size, views=views, rows=np.array([17]))
    )
    for column in (1, 2, 3):
        assert np.array_equal(first[column][order], again[column])
        assert np.array_equal(first[column][[17]], alone[column])


def test_views_follow_from_seed_and_row_alone_and_leave_the_embedding(net, table):
    def kappas(**options):
        rows, embedding, kappa, *_ = together(score_images(net, table, 32, views=4, **options))
        return rows, embedding, kappa

    one = together(score_images(net, table, 32))
    _, embedding, kappa = kappas()
    np.testing.assert_allclose(embedding, one[1], rtol=1e-3, atol=1e-3)
    assert not np.allclose(kappa, one[2], rtol=1e-4)
    rows, _, shuffled = kappas(batch_size=3, rows=np.arange(23)[::-1])
    assert np.allclose(kappa[rows], shuffled, rtol=1e-4)
    assert not np.allclose(kappa, kappas(seed=1)[2], rtol=1e-4)


def test_mean_kappa_is_the_mean_over_the_rendered_views(net, table, pictures):
    kappa = together(score_images(net, table, 64, views=3, seed=7, rows=np.array([11])))[2]
    image = torch.from_numpy(pictures[11]).permute(2, 0, 1)[None]
    pipeline = mild_views(net, 64, 3, seed=7)
    resized = torch.nn.functional.interpolate(image.float(), (96, 96), mode="bicubic", antialias=True)
    canvas = resized.round().clamp(0, 255).byte()
    views = pipeline.render(canvas, torch.tensor([pictures[11].shape[:2]]), pipeline.draw(1, 11))
    with torch.inference_mode():
        expected = torch.stack([net.represent(view).kappa for view in views]).mean()
    assert kappa[0] == pytest.approx(expected.item(), rel=0.01)


def test_over_views_kappa_and_uncertainty_rank_the_images_alike(net, table):
    _, _, kappa, uncertainty, *_ = together(score_images(net, table, 32, views=4, exact=True))
    d = net.kappa_head.latent_dim
    np.testing.assert_allclose(uncertainty, (d - 1) / (d - 1 + kappa.astype(float)), rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"views": 0}, {"batch_size": 0}, {"rows": np.array([23])}, {"rows": np.array([-1])}]
)
def test_arguments_out_of_range_are_refused_at_once(net, table, arguments):
    with pytest.raises(ValueError, match=r"at least 1|rows must lie"):
        score_images(net, table, 32, **arguments)
