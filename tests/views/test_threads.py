"""The compiled views against the path of torch's operations in float64, and against themselves differently cut up."""

import dataclasses
import faulthandler
import math
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

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


def test_nothing_beside_an_array_is_written(monkeypatch):
    """Views and scratch of many shapes lie between marks, which stay."""
    real, mark, margin, blocks = threads.np.empty, 0xA5, 256, []

    def marked(shape, dtype):
        size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * threads.np.dtype(dtype).itemsize
        block = threads.np.full(size + 2 * margin, mark, threads.np.uint8)
        blocks.append(block)
        return block[margin : margin + size].view(dtype).reshape(shape)

    def exactly(count, size, channels_last):
        flat = torch.from_numpy(marked(count * 3 * size * size, threads.np.float32))
        if channels_last:
            return flat.view(count, size, size, 3).permute(0, 3, 1, 2)
        return flat.view(count, 3, size, size)

    monkeypatch.setattr(threads, "empty_views", exactly)
    numbers = random.Random(0)
    for step in range(150):
        height, width, size = (numbers.choice([1, 16, 17, numbers.randint(1, 99)]) for _ in range(3))
        least = 10 ** numbers.uniform(-6, 0)
        sigma, last = 10 ** numbers.uniform(-2, 6), numbers.random() < 0.5
        ranges = {"scale": (least, 1.0), "ratio": (0.2, 5.0), "sigma": (0.01, sigma)}
        pipeline = ViewPipeline(size, grayscale=0.5, channels_last=last, **ranges)
        images, original = pictures(4, height, width), [numbers.randint(1, 999), numbers.randint(1, 999)]
        monkeypatch.setattr(threads.np, "empty", marked)
        views = pipeline(images, torch.tensor([original] * 4), step)
        monkeypatch.setattr(threads.np, "empty", real)
        assert all(view.isfinite().all() for view in views)
        assert all((block[:margin] == mark).all() and (block[-margin:] == mark).all() for block in blocks)
        blocks.clear()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: {"order": d.order + 10**6}, "order must lie in 0 to 3"),
        (lambda d: {"order": -d.order}, "order must lie in 0 to 3"),
        (lambda d: {"factors": d.factors[..., :3]}, r"factors must be \(2, 4, 4\), got \(2, 4, 3\)"),
        (lambda d: {"sigma": d.sigma[:, :1]}, r"sigma must be \(2, 4\), got \(2, 1\)"),
    ],
)
def test_draws_that_would_lead_beyond_an_array_are_refused(change, message):
    pipeline = ViewPipeline(16)
    draws = pipeline.draw(4, 0)
    with pytest.raises(ValueError, match=message):
        pipeline.render(
            pictures(4, 8, 8), torch.tensor([[8, 8]] * 4), dataclasses.replace(draws, **change(draws))
        )


def test_draws_of_other_types_are_not_compiled_for():
    pipeline, kernel = ViewPipeline(16), threads.load_kernel()
    images, sizes, draws = pictures(4, 8, 8), torch.tensor([[8, 8]] * 4), pipeline.draw(4, 0)
    before = len(kernel.render.signatures)
    others = {"order": draws.order.int(), "factors": draws.factors.float(), "flip": draws.flip.byte()}
    views = pipeline.render(images, sizes, dataclasses.replace(draws, **others))
    assert len(kernel.render.signatures) == before
    assert largest_difference(views, pipeline.render(images, sizes, draws)) < 1e-4


def test_a_crop_has_at_least_a_pixel():
    """Of an image one pixel wide the largest crop three times as wide as high."""
    pipeline = ViewPipeline(8, ratio=(3.0, 4.0), **UNIT)
    sizes = torch.tensor([[900, 1]] * 4)
    draws = pipeline.draw(4, 0)
    assert (pipeline.boxes(draws, sizes)[..., 2:] == 1).all()
    assert largest_difference(*both(pipeline, pictures(4, 20, 20), sizes, draws)) < CLOSE


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


def test_python_threads_may_render_at_once(thread_count):
    images, sizes = pictures(16, 30, 30), torch.tensor([[30, 30]] * 16)
    pipeline = ViewPipeline(33)
    expected = [pipeline(images, sizes, step) for step in range(6)]

    def several(number):
        thread_count(1 + number)
        return all(all(map(torch.equal, expected[n], pipeline(images, sizes, n))) for n in range(6))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(several, range(4)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_views_that_no_thread_rendered_are_not_handed_out(thread_count, monkeypatch):
    """An error before the compiled code begins, such as one of memory, is lost in torch's threads."""
    thread_count(3)
    images, sizes, pipeline = pictures(16, 40, 40), torch.tensor([[40, 40]] * 16), ViewPipeline(40)
    expected = pipeline(images, sizes, 0)

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(threads.load_kernel(), "render", fail)
        with pytest.raises((RuntimeError, MemoryError)):
            pipeline(images, sizes, 0)
    assert all(map(torch.equal, expected, pipeline(images, sizes, 0)))


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


def test_a_cache_that_cannot_be_used_is_done_without(monkeypatch):
    """A damaged file in it, or a full disk: torch's operations would be many times slower for good."""
    kernel = threads.load_kernel()
    cached, calls = kernel.render, []

    def fail_once():
        calls.append(kernel.render)
        if len(calls) == 1:
            raise OSError("No space left on device")

    monkeypatch.setattr(kernel, "render", cached)  # put back afterwards
    monkeypatch.setattr(kernel, "render_nothing", fail_once)
    with pytest.warns(
        UserWarning, match=r"cache of compiled code cannot be used \(No space left on device\)"
    ):
        assert threads.load_kernel.__wrapped__() is kernel
    assert calls[0] is cached
    assert calls[1] is kernel.render is not cached
    assert kernel.render.stats.cache_path is None


def test_a_numba_that_cannot_start_is_done_without(monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise OSError("Could not find libllvmlite.so")

    monkeypatch.setitem(sys.modules, "vissl_zoo.views.compiled", Broken("compiled"))
    with pytest.warns(UserWarning, match=r"torch's operations: numba cannot compile \(Could not find lib"):
        assert threads.load_kernel.__wrapped__() is None
