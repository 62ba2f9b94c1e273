"""Features of views: what is stored is what the model said, in memory and on disk."""

import shutil

import pytest
import torch

import vissl_zoo
from vissl_zoo.data import canvas_size, open_images
from vissl_zoo.data.canvas import read_to_canvas
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
    model = vissl_zoo.add_kappa_head(backbone(name), plain.num_features)
    features = extract_views(model, table, pipeline, exact=True)
    expected = []
    for row in range(12):
        pixels, true = read_to_canvas(table, row, canvas_size(table, size))
        views = pipeline.render(torch.from_numpy(pixels)[None], torch.tensor([true]), pipeline.draw(1, row))
        with torch.inference_mode():
            expected.append(torch.cat([plain(view) for view in views]))
    expected = torch.stack(expected)
    found = features.read(slice(None)) + features.offset
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_a_corrupt_image_is_left_out(backbone, write_photos, tmp_path):
    folder = write_photos(tmp_path, 12)
    (folder / "broken.png").write_bytes(b"no image")
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    assert len(extract_views(model, open_images(folder), view_pipeline(model, 32, 2, seed=0))) == 12


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e35])
def test_embeddings_that_are_no_numbers_are_refused(backbone, write_photos, tmp_path, value):
    model = vissl_zoo.add_kappa_head(backbone(), 96)
    model.global_pool.register_forward_hook(lambda module, inputs, pooled: torch.full_like(pooled, value))
    table = open_images(write_photos(tmp_path, 10))
    with pytest.raises(UserError, match=r"not finite.*of 20 views"):
        extract_views(model, table, view_pipeline(model, 32, 2, seed=0), exact=True)
