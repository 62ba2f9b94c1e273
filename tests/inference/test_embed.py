"""One generator: clean crops and views, in order, whatever the batches; bad images are told and stop nothing."""

import io
import sys
import threading
import time

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import vissl_zoo
from vissl_zoo.data import open_images
from vissl_zoo.data.canvas import read_to_canvas
from vissl_zoo.errors import UserError
from vissl_zoo.inference import RowViews, central_crop, concatenate, embed, embed_all
from vissl_zoo.models import Representation
from vissl_zoo.networks.kappa_head import KappaHead
from vissl_zoo.views import ViewPipeline

module = sys.modules["vissl_zoo.inference.embed"]  # the package has a function of that name


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return vissl_zoo.create_model("vi_simsiam", backbone="test_resnet", latent_dim=16).eval()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + i % 5, 36 + i % 7, 3), dtype=np.uint8) for i in range(23)]


@pytest.fixture
def table(pictures, write_split, tmp_path):
    return open_images(write_split(tmp_path / "train.parquet", pictures))


@pytest.fixture
def damaged(pictures, write_split, tmp_path):
    images = [*pictures[:4], b"no image", *pictures[5:9], b""]
    return open_images(write_split(tmp_path / "damaged" / "train.parquet", images))


def all_of(*arguments, **options):
    return concatenate(embed(*arguments, **options))


@pytest.mark.parametrize("exact, tolerance", [(True, 1e-5), (False, 0.02)])
def test_it_is_represent_on_timms_transform(net, table, exact, tolerance):
    found = all_of(net, table, exact=exact, batch_size=5)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    assert found.rows.tolist() == list(range(23))
    assert found.errors == [None] * 23
    for row in range(23):
        image = table.read(row)
        assert found.sizes[row].tolist() == [image.height, image.width]
        with torch.inference_mode():
            expected = net.represent(transform(image)[None])
        for mine, theirs in zip(found.representation, expected, strict=True):
            assert mine.dtype == np.float32
            assert np.linalg.norm(mine[row] - theirs[0].numpy()) <= tolerance * np.linalg.norm(theirs[0])


def test_rows_may_be_any_in_any_order(net, table):
    rows = np.array([5, 2, 5, 22])
    found, everything = all_of(net, table, 32, rows=rows, batch_size=3), all_of(net, table, 32)
    assert np.array_equal(found.rows, rows)
    assert np.allclose(found.embedding, everything.embedding[rows], atol=1e-3)
    assert list(embed(net, table, 32, rows=np.array([], dtype=int))) == []


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"rows": np.array([23])}, {"rows": np.array([-1])}])
def test_arguments_out_of_range_are_refused_at_once(net, table, arguments):
    with pytest.raises(ValueError, match=r"at least 1|rows must lie"):
        embed(net, table, 32, **arguments)


@pytest.mark.parametrize("views", [None, ViewPipeline(32, standard=3)])
@pytest.mark.parametrize("batch_size", [4, 1])
def test_bad_images_are_marked_and_stop_nothing(net, damaged, views, batch_size):
    found = all_of(net, damaged, 32, views=views, batch_size=batch_size)
    bad = np.isin(found.rows, [4, 9])
    assert [error is not None for error in found.errors] == bad.tolist()
    assert all("\n" not in error for error in filter(None, found.errors))
    for part in found.representation:
        assert np.array_equal(np.isnan(part).reshape(3 if views else 1, 10, -1).all((0, 2)), bad)
        assert np.isfinite(np.compress(~bad, part, axis=int(views is not None))).all()
    assert (found.sizes == 0).all(1).tolist() == bad.tolist()


def test_put_together_bad_images_are_left_out_and_named(net, damaged, caplog):
    found = embed_all(net, damaged, 32, views=ViewPipeline(32), clean=True)
    assert found.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert found.kappa.shape == (3, 8)
    assert "left out 2 of 10" in caplog.text
    with pytest.raises(UserError, match="2 of 2 images cannot be read"):
        embed_all(net, damaged, 32, rows=np.array([4, 9]))


class Fragile(nn.Module):
    """κ is not finite for dark images, the embedding for bright ones; it refuses to run in training mode."""

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


@pytest.mark.parametrize("views", [None, ViewPipeline(16, jitter=0.0, grayscale=0.0)])
def test_output_that_is_not_finite_is_that_images_error(write_split, tmp_path, views):
    images = [np.full((16, 16, 3), v, np.uint8) for v in (0, 100, 255, 120)]
    table, model = open_images(write_split(tmp_path / "train.parquet", images)), Fragile().train()
    found = all_of(model, table, 16, views=views)
    assert [error is not None for error in found.errors] == [True, False, True, False]
    assert "not finite" in found.errors[0]
    finite = (
        np.isfinite(found.select([1, 3]).embedding).all() and np.isfinite(found.select([1, 3]).kappa).all()
    )
    assert finite
    assert np.isnan(found.select([0, 2]).embedding).all()
    assert (found.sizes == 16).all()
    assert model.training  # as it was
    with pytest.raises(UserError, match="not finite for 2 of 4"):
        embed_all(model, table, 16)


def test_a_model_without_kappa_has_embeddings_alone(table):
    model = timm.create_model("test_resnet", num_classes=0)
    found = embed_all(model, table, 32, views=ViewPipeline(32), clean=True)
    assert found.embedding.shape == (3, 23, model.num_features)
    assert found.kappa is found.uncertainty is None


@pytest.mark.parametrize("views, batch_size", [(None, 8), (ViewPipeline(32, standard=3), 8), (None, None)])
def test_exact_results_are_the_same_bits_in_any_order_and_company(net, table, views, batch_size):
    options = {"exact": True, "batch_size": batch_size, "views": views}
    first, order = all_of(net, table, 32, workers=1, **options), np.random.default_rng(1).permutation(23)
    again, alone = (all_of(net, table, 32, rows=rows, **options) for rows in (order, np.array([17])))
    for part, other, one in zip(
        first.representation, again.representation, alone.representation, strict=True
    ):
        axis = 0 if views is None else 1
        assert np.array_equal(np.take(part, order, axis), other)
        assert np.array_equal(np.take(part, [17], axis), one)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_views_follow_from_seed_and_row_alone(net, table, batch_size):
    """The reference renders one image at a time."""
    pipeline = ViewPipeline(32, standard=3, seed=3)
    rows = np.array([5, 0, 22, 17])
    found = all_of(net, table, 32, rows=rows, views=pipeline, clean=True, exact=True, batch_size=batch_size)
    assert found.kappa.shape == (4, 4)
    np.testing.assert_allclose(found.kappa[0], all_of(net, table, 32, rows=rows, exact=True).kappa, rtol=1e-5)
    for place, row in enumerate(rows):
        pixels, size = read_to_canvas(table, row, (48, 48))
        views = pipeline.render(
            torch.from_numpy(pixels)[None], torch.tensor([size]), pipeline.draw(1, int(row))
        )
        for view, x in enumerate(views, start=1):
            with torch.inference_mode():
                embedding, kappa, _ = net.represent(x)
            np.testing.assert_allclose(found.embedding[view, place], embedding[0], atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(found.kappa[view, place], kappa[0], rtol=1e-4)
    other = all_of(net, table, 32, rows=rows, views=ViewPipeline(32, standard=3, seed=4), exact=True)
    assert not np.allclose(found.kappa[1:], other.kappa, rtol=1e-4)


def test_views_of_the_crop_that_change_nothing_are_the_crop(net, table):
    crop = central_crop(net, 32)
    off = {
        "flip": 0.0,
        "jitter": 0.0,
        "grayscale": 0.0,
        "blur": 0.0,
        "scale": (1.0, 1.0),
        "ratio": (1.0, 1.0),
    }
    views = RowViews(ViewPipeline(32, mean=crop.mean, std=crop.std, **off), of_crop=True)
    found = all_of(net, table, 32, views=views, clean=True, exact=True)
    for view in (1, 2):
        np.testing.assert_allclose(found.kappa[view], found.kappa[0], rtol=1e-4)
        np.testing.assert_allclose(found.embedding[view], found.embedding[0], atol=1e-4)


@pytest.mark.parametrize("exact, decoded_at", [(False, (600, 800)), (True, (1200, 1600))])
def test_a_large_jpeg_is_decoded_at_a_fraction_unless_exactly(
    net, write_split, tmp_path, monkeypatch, exact, decoded_at
):
    buffer, seen = io.BytesIO(), []
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)).save(
        buffer, "JPEG"
    )
    table = open_images(write_split(tmp_path / "train.parquet", [buffer.getvalue()]))

    def spy(crop, image, *rest):
        seen.append(image.size[::-1])
        return np.zeros((224, 224, 3), np.uint8)

    for name in ("crop", "crop_fast"):
        monkeypatch.setattr(module.CentralCrop, name, spy)
    found = all_of(net, table, 224, exact=exact)
    assert seen == [decoded_at]
    assert found.sizes.tolist() == [[1200, 1600]]


class Reads:
    """A table that notes what is read of it."""

    path = "data"

    def __init__(self, error=None):
        self.read, self.error = [], error

    def __len__(self):
        return 200

    def read_with_size(self, row, shape=None):
        if self.error:
            raise self.error
        self.read.append(row)
        return Image.new("RGB", (8, 8)), (8, 8)


def test_no_more_is_decoded_ahead_than_the_bound(net):
    """And decoding goes on while the caller works."""
    table = Reads()
    stream = embed(net, table, 8, batch_size=2, workers=2)
    next(stream)
    time.sleep(0.1)
    assert 2 < len(table.read) <= 2 * (1 + module._AHEAD)
    stream.close()
    time.sleep(0.05)
    assert len(table.read) < 20
    assert not any("ThreadPool" in t.name for t in threading.enumerate() if t.daemon)


def test_an_error_that_is_no_bad_image_is_not_swallowed(net):
    with pytest.raises(MemoryError):
        list(embed(net, Reads(MemoryError()), 8))


@pytest.mark.parametrize("side", [32, 224])
def test_measures_of_coarse_decoding_agree_with_exact_ones(net, write_split, tmp_path, side):
    rng = np.random.default_rng(0)
    files = []
    for height, width in ((900, 1400), (1300, 800)):
        layers = [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (4, 16, 64, 200)]
        parts = [np.asarray(Image.fromarray(layer).resize((width, height)), float) for layer in layers]
        files.append(io.BytesIO())
        Image.fromarray(np.uint8(sum(parts) / 4)).save(files[-1], "JPEG")
    table = open_images(write_split(tmp_path / "large" / "train.parquet", [f.getvalue() for f in files]))
    fast, exact = (
        next(embed(net, table, side, exact=exact, measured=True)).pixels for exact in (False, True)
    )
    np.testing.assert_allclose(fast[0], exact[0], rtol=0.1)
    assert fast[1] == exact[1]
    assert len(set(fast[1])) == 2
    assert next(embed(net, table, side)).pixels is None
