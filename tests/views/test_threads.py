"""The compiled views against the path of torch's operations in float64, and against themselves differently cut up."""

import dataclasses
import faulthandler
import os
import subprocess
import sys

import pytest
import torch

from vissl_zoo.views import ViewPipeline, render, threads

UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
CLOSE = 2e-6  # in [0, 1]; the normalisation multiplies it by 1 / std

pytestmark = pytest.mark.skipif(threads.load_kernel() is None, reason="needs numba")


def pictures(count, height, width, seed=0):
    """Smooth images with specks, saturated ones, a gray and a black one: uint8 (count, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    specks = torch.rand(smooth.shape, generator=generator)
    images = torch.where(specks < 0.1, specks * 10, smooth)
    images[1] = (3 * images[1] - 1).clamp(0, 1)
    images[2] = images[2, :1]
    images[3] = 0
    return (images * 255).round().byte()


def both(pipeline, images, sizes, draws):
    """(compiled, float64) views."""
    double = dataclasses.replace(pipeline, dtype=torch.float64)
    return pipeline.render(images, sizes, draws), double.render(images, sizes, draws)


def largest_difference(ours, expected):
    assert all(a.shape == b.shape and a.dtype == torch.float32 for a, b in zip(ours, expected, strict=True))
    return max((a - b).abs().max().item() for a, b in zip(ours, expected, strict=True))


@pytest.fixture
def compiled(monkeypatch):
    """The number of times that the kernel was asked for views: a test must not pass by another path."""
    calls = []

    def count(*arguments):
        calls.append(arguments)
        return threads.render_on_threads(*arguments)

    monkeypatch.setattr(render, "render_on_threads", count)
    return calls


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "height, width, size, low_size",
    [
        (32, 32, 64, 32),
        (256, 256, 224, 96),
        (40, 33, 24, 12),  # a canvas that is not square, views that are no multiple of sixteen
        (300, 200, 50, 31),  # larger than the view: long filters
        (17, 90, 33, 1),
        (7, 5, 19, 8),  # narrower than a vector
        (1, 1, 9, 2),
    ],
)
def test_views_equal_those_of_torchs_operations(height, width, size, low_size, channels_last, compiled):
    """Originals of two shapes and sizes, so that boxes have fractions; everything drawn at random."""
    pipeline = ViewPipeline(size, low=2, low_size=low_size, channels_last=channels_last, **UNIT)
    images = pictures(10, height, width)
    sizes = torch.tensor([[height, width], [3 * height, 2 * width]]).repeat(5, 1)
    draws = pipeline.draw(10, 3)
    ours, expected = both(pipeline, images, sizes, draws)
    assert len(compiled) == 2
    assert largest_difference(ours, expected) < CLOSE
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert all(view.is_contiguous(memory_format=memory_format) for view in ours)


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": (1e-3, 1e-2)},
        {"sigma": (0.3, 0.6)},
        {"sigma": (3.0, 20.0)},  # a window as wide as the view
        {"sigma": (1e-6, 1e6)},
        {"hue": 0.5, "brightness": 0, "contrast": 0, "saturation": 0},
        {"hue": 0, "brightness": 3, "contrast": 3, "saturation": 3},
        {"contrast": 1, "brightness": 0, "saturation": 0, "hue": 0, "grayscale": 1},
        {"jitter": 0, "blur": 0, "flip": 1, "grayscale": 0},
        {"jitter": 1, "blur": 1, "flip": 1, "grayscale": 1},
        {"jitter": 1, "blur": 1, "flip": 0, "grayscale": 0},
        {"scale": (1e-4, 1e-3), "ratio": (0.1, 10.0)},
        {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)},
        {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
    ],
    ids=str,
)
def test_extreme_settings_equal_those_of_torchs_operations(options, compiled):
    settings = {"jitter": 1, "blur": 1, "grayscale": 0.3, **options}
    pipeline = ViewPipeline(37, low=1, low_size=16, low_scale=(0.05, 0.2), **settings, **UNIT)
    images = pictures(16, 45, 50)
    ours, expected = both(pipeline, images, torch.tensor([[90, 70]] * 16), pipeline.draw(16, 1))
    assert compiled
    # Factors of up to 4, three times, also multiply what the crop rounds.
    factor = max(1, settings.get("contrast", 0) + 1) ** 3
    assert largest_difference(ours, expected) < CLOSE * factor


def test_normalisation_multiplies_what_is_rounded():
    pipeline = ViewPipeline(48)
    images = pictures(16, 64, 64)
    ours, expected = both(pipeline, images, torch.tensor([[64, 64]] * 16), pipeline.draw(16, 2))
    assert largest_difference(ours, expected) < CLOSE / min(pipeline.std)


def test_a_flip_mirrors():
    images = pictures(4, 20, 30)
    sizes = torch.tensor([[20, 30]] * 4)
    plain, mirrored = (
        ViewPipeline(24, standard=1, jitter=0, blur=0, grayscale=0, flip=flip)(images, sizes, 0)[0]
        for flip in (0, 1)
    )
    assert (plain.flip(3) - mirrored).abs().max() < 1e-5
    assert (plain - mirrored).abs().max() > 0.1


@pytest.fixture
def thread_count():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_and_company_change_no_bit(thread_count, compiled):
    """One thread and several, a batch and each image alone, an image in another place of memory."""
    pipeline = ViewPipeline(40, low=2, low_size=24)
    images = pictures(21, 50, 45)
    sizes = torch.tensor([[50, 45]] * 21)
    thread_count(1)
    alone = pipeline(images, sizes, 5)
    for number in (2, 5):
        thread_count(number)
        for _ in range(3):
            assert all(map(torch.equal, alone, pipeline(images, sizes, 5)))
    for n in range(21):
        one = pipeline(images[n : n + 1], sizes[:1], 5, n, 21)
        assert all(torch.equal(a[n], b[0]) for a, b in zip(alone, one, strict=True))
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert all(map(torch.equal, alone, pipeline(strided, sizes, 5)))
    assert len(compiled) > 40


def test_neither_nothing_nor_uninitialised_memory_is_read(monkeypatch):
    """Scratch full of NaN leaves no trace, and every number of a view is written."""
    real = threads.np.empty

    def poisoned(shape, dtype):
        array = real(shape, dtype)
        array.fill(float("nan") if dtype == threads.np.float32 else 2**40)
        return array

    images = pictures(12, 21, 18)
    pipeline = ViewPipeline(27, low=1, low_size=15, grayscale=0.5)
    expected = pipeline(images, torch.tensor([[21, 18]] * 12), 1)
    monkeypatch.setattr(threads.np, "empty", poisoned)
    views = pipeline(images, torch.tensor([[21, 18]] * 12), 1)
    assert all(map(torch.equal, views, expected))


def test_an_empty_batch_has_empty_views(compiled):
    for channels_last in (False, True):
        pipeline = ViewPipeline(24, channels_last=channels_last)
        views = pipeline(pictures(4, 8, 8)[:0], torch.empty(0, 2, dtype=torch.int64), 0)
        assert [tuple(view.shape) for view in views] == [(0, 3, 24, 24)] * 2
    assert compiled


def test_float64_and_a_missing_numba_take_torchs_operations(compiled, monkeypatch):
    images, sizes = pictures(4, 20, 20), torch.tensor([[20, 20]] * 4)
    ours = ViewPipeline(16)(images, sizes, 0)
    assert compiled
    compiled.clear()
    ViewPipeline(16, dtype=torch.float64)(images, sizes, 0)
    monkeypatch.setitem(sys.modules, "vissl_zoo.views.compiled", None)  # an import of it fails
    threads.load_kernel.cache_clear()
    try:
        others = ViewPipeline(16)(images, sizes, 0)
    finally:
        threads.load_kernel.cache_clear()
    assert not compiled
    assert all((a - b).abs().max() < 5e-5 for a, b in zip(ours, others, strict=True))


def test_a_forked_process_has_threads_of_its_own(thread_count):
    """As in the workers of a DataLoader, where torch's own threads are off: those of the parent do not run there."""
    thread_count(2)
    images, sizes = pictures(16, 20, 20), torch.tensor([[20, 20]] * 16)
    pipeline = ViewPipeline(16)
    expected = pipeline(images, sizes, 0)
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(60, exit=True)
        torch.set_num_threads(1)
        threads.torch.get_num_threads = lambda: 3
        alike = all(map(torch.equal, expected, pipeline(images, sizes, 0)))
        os._exit(0 if alike else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_numba_is_imported_when_views_are_rendered_and_not_before():
    code = "import sys, vissl_zoo, vissl_zoo.views.pipeline; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_numba_that_cannot_compile_is_done_without(monkeypatch):
    kernel = threads.load_kernel()

    def fail():
        raise RuntimeError("no such CPU\nand more")

    monkeypatch.setattr(kernel, "compile_now", fail)
    with pytest.warns(UserWarning, match=r"torch's operations: numba cannot compile \(no such CPU\)"):
        assert threads.load_kernel.__wrapped__() is None
