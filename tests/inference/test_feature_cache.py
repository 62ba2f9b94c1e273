"""Features are extracted once for a model and its images, and again when either changes."""

import numpy as np
import pytest

from vissl_zoo.data import cache_folder, open_images
from vissl_zoo.errors import UserError
from vissl_zoo.inference import feature_cache
from vissl_zoo.models import create_model


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The sizes `embed_all` was asked for; the cache is this test's own."""
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    seen, real = [], feature_cache.embed_all
    monkeypatch.setattr(feature_cache, "embed_all", lambda *a, **k: (seen.append(a[2]), real(*a, **k))[1])
    return seen


@pytest.fixture
def images(shapes_folder):
    return open_images(shapes_folder, split="test")


def model(name="vi_simsiam", seed=0, **arguments):
    import torch

    torch.manual_seed(seed)
    return create_model(name, backbone="test_resnet", latent_dim=16, **arguments).eval()


def features(net, images, size=32, **options):
    return feature_cache.cached_features(net, images, size, **options)


def test_second_call_reads_and_equals_the_first(calls, images):
    net = model()
    first, second = features(net, images), features(net, images)
    assert calls == [32]
    for a, b in zip(first.representation, second.representation, strict=True):
        assert np.array_equal(a, b)
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.sizes, second.sizes)
    assert first.errors == second.errors


def test_another_model_size_or_image_is_another_entry(calls, images, shapes_folder):
    net = model()
    features(net, images)
    features(net, images, size=24)
    features(model(seed=1), images)
    assert np.array_equal(features(net, images, rows=np.arange(7)).rows, np.arange(7))
    features(net, open_images(shapes_folder, split="train"))
    features(net, images, exact=True)
    assert len(calls) == 6


def test_a_model_without_kappa_is_kept_too(calls, images):
    net = create_model("test_resnet", num_classes=0).eval()
    first, second = features(net, images), features(net, images)
    assert len(calls) == 1
    assert first.kappa is second.kappa is None
    assert np.array_equal(first.embedding, second.embedding)


def test_a_cut_off_file_is_made_anew(calls, images):
    net = model()
    whole = features(net, images)
    (path,) = (cache_folder() / "features").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(features(net, images).kappa, whole.kappa)
    assert len(calls) == 2


def test_the_folder_is_where_the_variables_say(monkeypatch, tmp_path):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("VISSL_ZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vissl_zoo"


def test_models_that_share_all_tensors_are_told_apart():
    wide, narrow = model(), model()
    narrow.kappa_head.latent_dim = 64  # the same weights, another uncertainty
    assert feature_cache.model_hash(wide) == feature_cache.model_hash(model())
    assert feature_cache.model_hash(wide) != feature_cache.model_hash(narrow)
    cropped = model()
    cropped.pretrained_cfg = {**cropped.pretrained_cfg, "crop_pct": 0.5}  # what it sees of an image
    assert feature_cache.model_hash(wide) != feature_cache.model_hash(cropped)


def test_a_broken_model_is_refused(calls, images):
    net = model()
    next(net.parameters()).data.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        features(net, images)


def test_a_cache_that_cannot_be_written_costs_nothing(monkeypatch, images):
    monkeypatch.setenv("VISSL_ZOO_CACHE", "/proc/nowhere")
    assert len(features(model(), images).kappa) == 40
