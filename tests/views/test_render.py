"""How the work is cut up must not show: chunks, order, memory format, and which images share a batch."""

import pytest
import torch

from vissl_zoo.views import ViewPipeline, render


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(20, 3, 5, 5, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (40, 32), mode="bilinear") * 255).byte()


def views_of(images, **options):
    pipeline = ViewPipeline(24, low=2, low_size=16, **options)
    return pipeline(images, torch.tensor([[40, 32]] * len(images)), step=3)


@pytest.mark.parametrize("numbers", [1, 5 * 3 * 24 * 24, 7 * 3 * 16 * 16])
def test_chunks_change_nothing(images, numbers, monkeypatch):
    whole = views_of(images, dtype=torch.float64)
    monkeypatch.setattr(render, "CHUNK", numbers)
    for one, other in zip(whole, views_of(images, dtype=torch.float64), strict=True):
        assert (one - other).abs().max() < 1e-12


def test_an_image_alone_has_the_views_that_it_has_in_a_batch(images):
    pipeline = ViewPipeline(24, dtype=torch.float64)
    sizes = torch.tensor([[40, 32]] * 20)
    whole = pipeline(images, sizes, 3)
    for n in range(20):
        for one, other in zip(whole, pipeline(images[n : n + 1], sizes[:1], 3, n, 20), strict=True):
            assert (one[n] - other[0]).abs().max() < 1e-12


def test_channels_last_changes_the_strides_alone(images):
    for one, other in zip(views_of(images), views_of(images, channels_last=True), strict=True):
        assert one.is_contiguous()
        assert other.is_contiguous(memory_format=torch.channels_last)
        assert not other.is_contiguous()
        assert torch.equal(one, other)


def test_views_are_their_own(images):
    """A caller may write into one view, and a later call must not write into it."""
    first = views_of(images)
    kept = [view.clone() for view in first]
    first[0].zero_()
    views_of(images.flip(0))
    assert all(torch.equal(a, b) for a, b in zip(first[1:], kept[1:], strict=True))


@pytest.mark.parametrize("which", ["jitter", "grayscale", "blur"])
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_none_and_all_of_an_operation(images, which, probability):
    """Empty groups and full ones, against each image alone."""
    pipeline = ViewPipeline(24, dtype=torch.float64, **{which: probability})
    sizes = torch.tensor([[40, 32]] * 20)
    draws = pipeline.draw(20, 0)
    whole = pipeline.render(images, sizes, draws)
    for n in (0, 11):
        alone = pipeline.render(images[n : n + 1], sizes[:1], draws[n : n + 1])
        assert all((a[n] - b[0]).abs().max() < 1e-12 for a, b in zip(whole, alone, strict=True))


def test_an_empty_batch_has_empty_views(images):
    views = ViewPipeline(24, low=1, low_size=16)(images[:0], torch.empty(0, 2, dtype=torch.int64), 0)
    assert [tuple(view.shape) for view in views] == [(0, 3, 24, 24)] * 2 + [(0, 3, 16, 16)]
