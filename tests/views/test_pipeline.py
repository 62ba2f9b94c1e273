"""The whole pipeline: against torchvision image by image and in distribution, sliced, and misused."""

import dataclasses

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from scipy.stats import ks_2samp

from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD, ViewPipeline

ADJUST = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]


def colourful(number, height=32, width=32, seed=0):
    """Smooth random images, each with a colour of its own: uint8 (number, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    tint = torch.rand(number, 3, 1, 1, generator=generator)
    coarse = 0.6 * tint + 0.4 * torch.rand(number, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8)


def full_size(images):
    return torch.tensor([images.shape[2:]] * len(images))


def render_one_by_one(pipeline, images, draws):
    """The same draws through torchvision's functional operations, a view and an image at a time."""
    boxes = pipeline.boxes(draws, full_size(images))
    window = [17, 17]  # 4 x the largest standard deviation to each side
    for view, size in enumerate(pipeline.sizes):
        rendered = []
        for i, image in enumerate(images.to(pipeline.dtype) / 255):
            image = F.resized_crop(image, *boxes[view, i].tolist(), [size, size], antialias=True)
            if draws.flip[view, i]:
                image = F.horizontal_flip(image)
            if draws.jitter[view, i]:
                for operation in draws.order[view, i].tolist():
                    image = ADJUST[operation](image, draws.factors[view, i, operation].item())
            if draws.grayscale[view, i]:
                image = F.rgb_to_grayscale(image, 3)
            if draws.blur[view, i]:
                image = F.gaussian_blur(image, window, [draws.sigma[view, i].item()] * 2)
            rendered.append(F.normalize(image, IMAGENET_MEAN, IMAGENET_STD))
        yield torch.stack(rendered)


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (32, 32, 64), (72, 96, 64)])
def test_render_equals_torchvision_with_the_same_draws(height, width, size):
    pipeline = ViewPipeline(size, low=1, low_size=24)
    images = colourful(32, height, width)
    draws = pipeline.draw(len(images), 0)
    assert draws.jitter.any()
    assert draws.blur.any()
    ours = pipeline.render(images, full_size(images), draws)
    for view, expected in zip(ours, render_one_by_one(pipeline, images, draws), strict=True):
        assert (view - expected).abs().max() < 5e-5  # normalisation multiplies errors in [0, 1] by 4.5


def statistics(views):
    """Per image: mean, standard deviation, mean saturation, and hue of the mean colour in turns."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    pixels = views * std + mean
    gray = pixels.amax(1, keepdim=True) - pixels.amin(1, keepdim=True) < 1e-5
    pixels = torch.where(
        gray, pixels[:, :1], pixels
    )  # a gray pixel is gray, not gray within float's precision
    high, low = pixels.amax(1), pixels.amin(1)
    red, green, blue = pixels.mean((2, 3)).unbind(1)
    hue = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi)
    saturation = ((high - low) / high.clamp_min(1e-6)).mean((1, 2))
    mean, std = pixels.mean((1, 2, 3)), pixels.std((1, 2, 3))
    return {"mean": mean, "std": std, "saturation": saturation, "hue": hue}


def pvalues(ours, theirs):
    return {name: ks_2samp(ours[name].numpy(), theirs[name].numpy()).pvalue for name in ours}


def test_views_are_distributed_as_torchvision_draws_them():
    """Kolmogorov-Smirnov tests over 600 views of one image, and their power against a weaker jitter."""
    number = 600
    images = colourful(1, 24, 24, seed=3)
    torch.manual_seed(0)
    compose = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(24, scale=(0.2, 1.0), antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(17, (0.1, 2.0))], p=0.5),
            v2.RandomHorizontalFlip(),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    theirs = statistics(torch.stack([compose(images[0]) for _ in range(number)]))
    batch = images.expand(number, -1, -1, -1)
    pipeline = ViewPipeline(24, standard=1)
    ours = statistics(pipeline(batch, full_size(batch), 0)[0])
    assert min(pvalues(ours, theirs).values()) > 1e-3
    weaker = dataclasses.replace(pipeline, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
    other = statistics(weaker(batch, full_size(batch), 0)[0])
    assert max(pvalues(other, theirs)[name] for name in ("mean", "saturation", "hue")) < 1e-3


@pytest.mark.parametrize("world_size", [2, 4])
def test_slices_rendered_apart_equal_the_whole(world_size):
    pipeline = ViewPipeline(32, low=2, low_size=16, dtype=torch.float64)
    images = colourful(32)
    sizes = full_size(images)
    whole = pipeline(images, sizes, step=7)
    share = 32 // world_size
    for start in range(0, 32, share):
        part = slice(start, start + share)
        views = pipeline(images[part], sizes[part], 7, start, 32)
        for ours, expected in zip(views, whole, strict=True):
            assert ours.dtype == torch.float64
            assert (ours - expected[part]).abs().max() < 1e-12


def test_precisions_agree():
    images = colourful(16)
    single, double = (
        ViewPipeline(32, dtype=d)(images, full_size(images), 0) for d in (torch.float32, torch.float64)
    )
    for a, b in zip(single, double, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() < 5e-5


@pytest.mark.parametrize(
    "options",
    [
        {"sigma": (1e-6, 1e6)},
        {"sigma": (3.0, 20.0)},  # a window as wide as the view
        {"hue": 0.5, "brightness": 0, "contrast": 0, "saturation": 0},
        {"hue": 0, "brightness": 3, "contrast": 3, "saturation": 3},
        {"contrast": 1, "brightness": 0, "saturation": 0, "hue": 0, "grayscale": 1},
        {"jitter": 1, "blur": 1, "flip": 1, "grayscale": 1},
        {"scale": (1e-4, 1e-3), "ratio": (0.1, 10.0)},
        {"ratio": (3.0, 4.0)},  # of an original one pixel wide
    ],
    ids=str,
)
def test_extreme_settings_have_the_same_views_in_both_precisions(options):
    unit = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    settings = {"jitter": 1, "blur": 1, "grayscale": 0.3, "low": 1, "low_size": 16, **unit, **options}
    images, sizes = colourful(16, 45, 50), torch.tensor([[90, 1 if "ratio" in options else 70]] * 16)
    images[:4] = images[4:8] // 40  # dark ones, whose hue is that of a few levels
    single, double = (
        ViewPipeline(37, dtype=dtype, **settings)(images, sizes, 1)
        for dtype in (torch.float32, torch.float64)
    )
    # Factors of up to 4, three times, also multiply what the crop rounds.
    factor = max(1, settings.get("contrast", 0) + 1) ** 3
    for a, b in zip(single, double, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() < 5e-6 * factor


def test_multi_crop_shapes_and_order():
    pipeline = ViewPipeline(32, low=3, low_size=16)
    images = colourful(4)
    views = pipeline(images, full_size(images), 0)
    assert [tuple(view.shape) for view in views] == [(4, 3, 32, 32)] * 2 + [(4, 3, 16, 16)] * 3
    assert pipeline.sizes == [32, 32, 16, 16, 16]
    boxes = pipeline.boxes(pipeline.draw(500, 0), torch.tensor([[200, 200]] * 500)).double()
    area = boxes[..., 2] * boxes[..., 3] / 200**2
    assert area[:2].min() > 0.19
    assert area[2:].min() > 0.04
    assert area[2:].max() < 0.21


@pytest.mark.parametrize("height, width", [(80, 120), (150, 70)])
def test_squashed_canvas_looks_like_the_direct_crop(height, width):
    """The canvas has lost the aspect and the size of the original; boxes are drawn on the original all the same."""
    original = colourful(1, height, width)
    canvas = F.resize(original, [64, 64], antialias=True).expand(20, -1, -1, -1)
    sizes = torch.tensor([[height, width]] * 20)
    unit = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    pipeline = ViewPipeline(32, standard=1, flip=0, jitter=0, grayscale=0, blur=0, **unit)
    draws = pipeline.draw(20, 0)
    (views,) = pipeline.render(canvas, sizes, draws)
    for view, box in zip(views, pipeline.boxes(draws, sizes)[0].tolist(), strict=True):
        direct = F.resized_crop(original[0] / 255, *box, [32, 32], antialias=True)
        assert (view - direct).abs().max() < 0.02  # the contrast of these images is about 0.3


def test_everything_off_is_the_normalised_image():
    off = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0, "jitter": 0, "grayscale": 0, "blur": 0}
    pipeline = ViewPipeline(32, standard=1, **off)
    images = colourful(3)
    (view,) = pipeline(images, full_size(images), 0)
    expected = F.normalize(images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.allclose(view, expected, atol=1e-6)


def test_probability_one_turns_every_image_gray_and_mirrors_it():
    always = ViewPipeline(
        16, standard=1, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1, jitter=0, grayscale=1, blur=0
    )
    images = colourful(5, 16, 16)
    (view,) = always(images, full_size(images), 0)
    expected = F.rgb_to_grayscale(F.horizontal_flip(images.float() / 255), 3)
    assert torch.allclose(view, F.normalize(expected, IMAGENET_MEAN, IMAGENET_STD), atol=1e-6)


def test_input_images_are_left_alone():
    images = colourful(4)
    before = images.clone()
    ViewPipeline(32)(images, full_size(images), 0)
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels_last", [False, True])
def test_rendering_reads_no_number_from_the_device(channels_last):
    """Meta tensors have no values, and raise where a number is asked for or something of the host's is mixed in."""
    pipeline = ViewPipeline(32, low=1, low_size=16, channels_last=channels_last)
    images = colourful(4, 40, 24).to("meta")
    views = pipeline.render(images, full_size(images), pipeline.draw(4, 0))
    assert [view.shape for view in views] == [(4, 3, 32, 32), (4, 3, 32, 32), (4, 3, 16, 16)]
    assert {view.device.type for view in views} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu_without_host_synchronisation():
    pipeline = ViewPipeline(32, low=1, low_size=16, dtype=torch.float64)
    images = colourful(16)
    sizes, draws = full_size(images), pipeline.draw(16, 0)
    expected = pipeline.render(images, sizes, draws)
    on_device = images.cuda()
    pipeline.render(on_device, sizes, draws)  # the first call may set libraries up
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = pipeline.render(on_device, sizes, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, theirs in zip(views, expected, strict=True):
        assert (ours.cpu() - theirs).abs().max() < 1e-12


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 0}, "size must be at least 1"),
        ({"standard": 0}, "standard and low must be counts"),
        ({"low": -1}, "standard and low must be counts"),
        ({"low": 2}, "low=2 views need low_size"),
        ({"low": 2, "low_size": 0}, "low_size must be at least 1"),
        ({"scale": (0.0, 1.0)}, "scale must be two numbers in"),
        ({"scale": (0.2, 1.5)}, "scale must be two numbers in"),
        ({"low_scale": (0.5, 0.2)}, "low_scale must be two numbers in"),
        ({"ratio": (4 / 3, 3 / 4)}, "ratio must be two numbers above 0"),
        ({"ratio": (1.0, float("inf"))}, "ratio must be two numbers above 0"),
        ({"sigma": (2.0, 0.1)}, "sigma must be two numbers above 0"),
        ({"sigma": (0.0, 2.0)}, "sigma must be two numbers above 0"),
        ({"flip": 1.5}, "flip must be a probability"),
        ({"jitter": -0.1}, "jitter must be a probability"),
        ({"grayscale": float("nan")}, "grayscale must be a probability"),
        ({"blur": 2}, "blur must be a probability"),
        ({"brightness": -1}, "brightness must be 0 or more"),
        ({"hue": 0.6}, "hue must be in"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        ({"mean": (0.5,)}, "three numbers each"),
        ({"seed": -1}, "seed must lie in"),
        ({"dtype": torch.float16}, "dtype must be"),
    ],
)
def test_bad_arguments_raise_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ViewPipeline(**{"size": 32, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images, sizes, message",
    [
        (torch.zeros(4, 3, 8, 8), torch.full((4, 2), 8), "images must be uint8"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.full((4, 2), 8), "images must be uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), torch.full((3, 2), 8), "images must be uint8"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.full((3, 2), 8), "sizes must be integer"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.full((4, 2), 8.0), "sizes must be integer"),
        (
            torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(4, 2, dtype=torch.int64),
            "at least 1 pixel",
        ),
    ],
)
def test_bad_batches_raise_one_clear_line(images, sizes, message):
    with pytest.raises(ValueError, match=message) as error:
        ViewPipeline(8)(images, sizes, 0)
    assert "\n" not in str(error.value)


def test_draws_of_another_batch_or_pipeline_are_refused():
    images = colourful(4)
    with pytest.raises(ValueError, match="draws are of 2 views × 5 images"):
        ViewPipeline(8).render(images, full_size(images), ViewPipeline(8).draw(5, 0))
    with pytest.raises(ValueError, match="draws are of 3 views"):
        ViewPipeline(8).render(images, full_size(images), ViewPipeline(8, standard=3).draw(4, 0))


@pytest.mark.parametrize("start, total", [(-1, 8), (6, 8), (0, 3)])
def test_images_outside_the_global_batch_are_refused(start, total):
    images = colourful(4)
    with pytest.raises(ValueError, match="do not lie inside a global batch"):
        ViewPipeline(8)(images, full_size(images), 0, start, total)
