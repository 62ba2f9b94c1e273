"""Features of views: what is stored is what the model said, in memory and on disk."""

import shutil

import pytest
import torch

import vissl_zoo
from vissl_zoo.data import open_images, open_store
from vissl_zoo.errors import UserError
from vissl_zoo.fitting.view_features import extract_views, view_pipeline


@pytest.mark.parametrize("memory_limit", [2**30, 0])
@pytest.mark.parametrize("magnitude", [1e-6, 1.0, 1e25])
def test_reads_what_was_written(make_features, memory_limit, magnitude, tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path))
    torch.manual_seed(0)
    y = magnitude * (50 + torch.randn(23, 3, 5))  # a spread that float16 alone would round away
    with make_features(y, memory_limit=memory_limit) as features:
        assert len(list(tmp_path.iterdir())) == (memory_limit == 0)
        assert len(features) == 23
        expected = y - features.offset
        torch.testing.assert_close(features.read(slice(3, 9)), expected[3:9], rtol=0, atol=2e-3 * magnitude)
        images, views = torch.tensor([4, 22, 0]).numpy(), torch.tensor([2, 0, 0]).numpy()
        torch.testing.assert_close(
            features.read(images, views), expected[[4, 22, 0], [2, 0, 0]], rtol=0, atol=2e-3 * magnitude
        )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_it_is_full(make_features, tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match="VISSL_ZOO_CACHE"):
        make_features(torch.randn(8, 2, 4), memory_limit=0)


@pytest.mark.parametrize("name, size", [("test_resnet", 32), ("test_vit", 160), ("test_convnext", 32)])
def test_are_the_models_own_embeddings(backbone, write_photos, tmp_path, name, size):
    """Against a loop over single images, each view through timm's own forward, normalised by the model's statistics."""
    table = open_images(write_photos(tmp_path, 12, gray=3))
    plain = backbone(name)
    pipeline = view_pipeline(plain, size, 3, seed=4)
    assert pipeline.mean == tuple(plain.pretrained_cfg["mean"])
    store = open_store(table, size, workers=1, progress=False)
    model = vissl_zoo.add_kappa_head(backbone(name), plain.num_features)
    features = extract_views(model, store, pipeline, exact=True)
    (batch,) = store.batches([range(12)])
    views = pipeline(batch.images, batch.sizes, 0)
    with torch.inference_mode():
        expected = torch.stack([plain(view) for view in views], dim=1)
    found = features.read(slice(None)) + features.offset
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_a_corrupt_image_is_left_out_also_when_read_on_the_fly(backbone, write_photos, tmp_path):
    folder = write_photos(tmp_path, 12)
    (folder / "broken.png").write_bytes(b"no image")
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    kept = []
    for memory_limit in (2**30, 0):
        store = open_store(
            open_images(folder),
            32,
            workers=0,
            memory_limit=memory_limit,
            max_bad_fraction=1.0,
            progress=False,
        )
        kept.append(len(extract_views(model, store, view_pipeline(model, 32, 2, seed=0), exact=True)))
    assert kept == [12, 12]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e35])
def test_embeddings_that_are_no_numbers_are_refused(backbone, write_photos, tmp_path, value):
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    model.global_pool.register_forward_hook(lambda module, inputs, pooled: torch.full_like(pooled, value))
    store = open_store(open_images(write_photos(tmp_path, 10)), 32, workers=1, progress=False)
    with pytest.raises(UserError, match=r"not finite.*of 20 views"):
        extract_views(model, store, view_pipeline(model, 32, 2, seed=0), exact=True)
