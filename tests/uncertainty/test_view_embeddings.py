"""Embeddings of images and of their views are the model's own, in memory and on disk, and the rest is said."""

import shutil

import numpy as np
import pytest
import torch

import vissl_zoo
from vissl_zoo.data import open_images, open_store
from vissl_zoo.errors import UserError
from vissl_zoo.inference import RowViews, embed_all
from vissl_zoo.uncertainty.view_embeddings import embed_views
from vissl_zoo.views import ViewPipeline


@pytest.mark.parametrize("name, size", [("test_resnet", 32), ("test_vit", 160)])
def test_are_the_models_own_embeddings(backbone, write_photos, tmp_path, name, size):
    """Against timm's own forward of each view, normalised by the model's statistics."""
    table = open_images(write_photos(tmp_path, 12, gray=3))
    plain = backbone(name)
    mean, std = (tuple(plain.pretrained_cfg[key]) for key in ("mean", "std"))
    (batch,) = open_store(table, size, workers=1, progress=False).batches([np.arange(12)])
    render = RowViews(ViewPipeline(size, standard=3, seed=4, mean=mean, std=std))
    with torch.inference_mode():
        expected = [plain(view) for view in render(batch.images, batch.sizes, np.arange(12))]
    expected.insert(0, torch.from_numpy(embed_all(plain, table, size, exact=True).embedding))
    model = vissl_zoo.add_kappa_head(backbone(name), plain.num_features)
    found = embed_views(model, table, size, views=3, seed=4, exact=True)
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-4)


def test_a_corrupt_image_is_left_out_and_named(backbone, write_photos, tmp_path, caplog):
    folder = write_photos(tmp_path, 12)
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    whole = embed_views(model, open_images(folder), 32, views=2, exact=True)
    (folder / "99.png").write_bytes(b"no image")
    found = embed_views(model, open_images(folder), 32, views=2, exact=True)
    np.testing.assert_array_equal(found, whole)
    assert "left out 1 of 13 images that cannot be read: 99.png" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e35])
def test_embeddings_that_are_no_numbers_are_refused(backbone, write_photos, tmp_path, value):
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    model.global_pool.register_forward_hook(lambda module, inputs, pooled: torch.full_like(pooled, value))
    table = open_images(write_photos(tmp_path, 10))
    with pytest.raises(UserError, match=r"not finite.*for 10 of 10 images"):
        embed_views(model, table, 32, views=2, exact=True)


def test_many_lie_in_a_file_that_goes_with_them(backbone, write_photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    table = open_images(write_photos(tmp_path / "photos", 12))
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    in_memory = embed_views(model, table, 32, views=2, exact=True)
    on_disk = embed_views(model, table, 32, views=2, exact=True, memory_limit=0)
    assert isinstance(on_disk, np.memmap)
    np.testing.assert_array_equal(on_disk, in_memory)
    del on_disk
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_said_before_it_is_full(backbone, write_photos, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    with pytest.raises(UserError, match="VISSL_ZOO_CACHE"):
        embed_views(model, open_images(write_photos(tmp_path, 10)), 32, views=2, memory_limit=0)
