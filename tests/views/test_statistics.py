"""Statistics of the views of several images against torchvision v2's with the same settings: two-sample tests.

Every comparison is a Kolmogorov-Smirnov or a chi-square test at LEVEL, Bonferroni-corrected over those of its test; the
seeds are fixed. A pipeline with one thing wrong must fail the same comparison, or the comparison says nothing. Colours
and blur are tested apart from the crop, whose variance would hide them; test_pipeline.py has them all at once.
"""

import dataclasses

import pytest
import torch
import torchvision.transforms.v2 as v2
from scipy.stats import chi2_contingency, ks_2samp

from vissl_zoo.views import ViewPipeline

LEVEL = 1e-3
SIZE, THEIRS, OURS = 12, 1000, 3000  # pixels; draws
JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}  # SimCLR's: the order shows
WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
PIPELINES = {
    "colour": ViewPipeline(SIZE, standard=1, flip=0, grayscale=0.2, blur=0, jitter=1, **JITTER, **WHOLE),
    "blur": ViewPipeline(SIZE, standard=1, flip=0, grayscale=0, blur=0.5, jitter=0, **WHOLE),
}
TORCHVISION = {
    "colour": v2.Compose([v2.ColorJitter(*JITTER.values()), v2.RandomGrayscale(p=0.2)]),
    "blur": v2.RandomApply([v2.GaussianBlur(17, (0.1, 2.0))], p=0.5),
}


@pytest.fixture(scope="module")
def images():
    """Images (3, 3, 12, 12) uint8: light ones and pure colours, which the jitter clips, and a dark one of one hue."""
    light, noise = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, SIZE * SIZE).view(SIZE, SIZE)
    pure = torch.stack([0.5 + 0.5 * ramp, 0.3 * ramp, 0.2 * noise[0]])
    dark = noise * torch.tensor([0.3, 0.9, 0.2]).view(3, 1, 1)
    return (torch.stack([0.6 + 0.4 * light, pure, dark]) * 255).byte()


@pytest.fixture(scope="module")
def theirs(images):
    """By part of the pipeline, views (3 images, THEIRS, 3, SIZE, SIZE)."""
    torch.manual_seed(0)
    return {
        part: torch.stack([transform(images / 255) for _ in range(THEIRS)], 1)
        for part, transform in TORCHVISION.items()
    }


def hsv(pixels):
    """Hue in turns, saturation and chroma (N, H, W) of images (N, 3, H, W), by cases."""
    red, green, blue = pixels.unbind(1)
    high, which = pixels.max(1)
    chroma = high - pixels.amin(1)
    safe = chroma.clamp_min(1e-6)
    sectors = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe], 1)
    hue = sectors.gather(1, which.unsqueeze(1)).squeeze(1) / 6 % 1
    return hue, chroma / high.clamp_min(1e-6), chroma


def as_levels(views):
    """Rounded to 8 bits: a gray pixel is then gray, and an image left alone is itself, whatever floats do."""
    return (views * 255).round() / 255


def numbers(views):
    """One number a view, since tests want independent draws: mean, variance, saturation, clipped share, edges."""
    views = as_levels(views)
    return {
        "mean": views.mean((1, 2, 3)),
        "variance": views.var((1, 2, 3)),
        "saturation": hsv(views)[1].mean((1, 2)),
        "clipped": (views >= 0.999).float().mean((1, 2, 3)),
        "edges": views.diff(dim=3).abs().mean((1, 2, 3)),
    }


def histograms(views):
    """Counts of the views, and not of their pixels, which depend on one another, by the colour of one pixel."""
    hue, saturation, chroma = (x[:, SIZE // 2, SIZE // 2] for x in hsv(as_levels(views)))
    coloured = chroma > 0.02  # of a gray pixel the hue means nothing
    return {"hue": torch.histc(hue[coloured], 24, 0, 1), "saturation": torch.histc(saturation, 10, 0, 1)}


def compare(images, pipeline, theirs, change=lambda draws: {}):
    """(least p-value of all comparisons times their number, which comparison it is)."""
    draws = pipeline.draw(OURS, step=0)
    draws = dataclasses.replace(draws, **change(draws))
    values = {}
    for i, image in enumerate(images):
        sizes = torch.full((OURS, 2), SIZE)
        ours = pipeline.render(image.expand(OURS, -1, -1, -1), sizes, draws)[0]
        a, b = numbers(ours), numbers(theirs[i])
        values |= {(name, i): ks_2samp(a[name].numpy(), b[name].numpy()).pvalue for name in a}
        a, b = histograms(ours), histograms(theirs[i])
        for name in a:
            both = torch.stack([a[name], b[name]])
            both = both[:, both.sum(0) >= 30]
            if both.shape[1] > 1:
                values[f"{name} histogram", i] = chi2_contingency(both.numpy()).pvalue
    which = min(values, key=values.__getitem__)
    return values[which] * len(values), which


@pytest.mark.parametrize("part", PIPELINES)
def test_views_have_the_statistics_of_torchvision(images, theirs, part):
    pvalue, which = compare(images, PIPELINES[part], theirs[part])
    assert pvalue > LEVEL, which


@pytest.mark.parametrize(
    "part, wrong",
    [
        ("colour", {"hue": 0.15}),
        ("colour", {"saturation": 0.5}),
        ("colour", {"contrast": 0.6}),
        ("colour", {"brightness": 0.6}),
        ("colour", {"grayscale": 0.1}),
        ("colour", {"jitter": 0.8}),
        ("blur", {"blur": 0.3}),
        ("blur", {"sigma": (0.1, 1.7)}),
    ],
    ids=str,
)
def test_a_wrong_setting_is_found(images, theirs, part, wrong):
    pvalue, which = compare(images, dataclasses.replace(PIPELINES[part], **wrong), theirs[part])
    assert pvalue < LEVEL, which


def test_an_order_that_is_always_the_same_is_found(images, theirs):
    def fixed(draws):
        return {"order": torch.tensor([3, 2, 1, 0]).expand_as(draws.order)}

    pvalue, which = compare(images, PIPELINES["colour"], theirs["colour"], fixed)
    assert pvalue < LEVEL, which


@pytest.mark.parametrize("scale, alike", [((0.2, 1.0), True), ((0.22, 1.0), False), ((0.2, 0.8), False)])
def test_crop_boxes_have_the_statistics_of_torchvision(scale, alike):
    """Area, aspect and place of 4,000 boxes on originals of two shapes, and two scales that are a little off."""
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=(0.2, 1.0))
    pvalues = []
    for height, width in ((40, 56), (375, 500)):
        image = torch.empty(3, height, width, dtype=torch.uint8)
        params = [crop.make_params([image]) for _ in range(4000)]
        theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in params]).double()
        pipeline = ViewPipeline(8, scale=scale, standard=1)
        ours = pipeline.boxes(pipeline.draw(4000, 0), torch.tensor([[height, width]] * 4000))[0].double()
        for feature in (
            lambda b: b[:, 2] * b[:, 3],
            lambda b: b[:, 3] / b[:, 2],
            lambda b: b[:, 0] + b[:, 2] / 2,
            lambda b: b[:, 1] + b[:, 3] / 2,
        ):
            pvalues.append(ks_2samp(feature(ours).numpy(), feature(theirs).numpy()).pvalue)
    assert (min(pvalues) * len(pvalues) > LEVEL) == alike
