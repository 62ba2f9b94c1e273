"""Views follow from the seed; training crops belong to the images and classes that they are said to."""

import numpy as np
import pytest
import torch

from vissl_zoo.data import open_images
from vissl_zoo.data.canvas import read_to_canvas
from vissl_zoo.evaluation import image_views
from vissl_zoo.evaluation.context import Evaluation
from vissl_zoo.evaluation.image_views import CropReader, sample_images, two_views, unit_length
from vissl_zoo.inference import Embedded
from vissl_zoo.models import Representation
from vissl_zoo.views import IMAGENET_MEAN, IMAGENET_STD, ViewPipeline

GRAYS = (np.arange(24) * 10 + 5).astype(np.uint8)


def told(rows, embedding, kappa=None, uncertainty=None):
    """What a model is taken to say of images."""
    sizes = np.full((len(rows), 2), 16)
    return Embedded(rows, Representation(embedding, kappa, uncertainty), sizes, [None] * len(rows))


@pytest.fixture
def evaluation(write_split, model, tmp_path):
    """Each image has a gray of its own, which every crop of it shows; the third is corrupt."""
    images = [np.full((20, 30, 3), gray, dtype=np.uint8) for gray in GRAYS]
    images[2] = b"no image"
    table = open_images(write_split(tmp_path / "train.parquet", images, np.arange(24) % 3))
    evaluation = Evaluation(model, None, table, table, 16, tmp_path, workers=1)
    rows = np.delete(np.arange(24), 2)
    evaluation.train_features = told(rows, np.zeros((23, 4), np.float32))
    return evaluation


def grays(view):
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (view * std + mean) * 255
    assert pixels.std(dim=(1, 2, 3)).max() < 0.01
    return pixels.mean(dim=(1, 2, 3)).round().to(torch.int64)


@pytest.mark.parametrize("fits", [True, False])
def test_crops_and_classes_are_those_of_the_chosen_images(evaluation, fits, monkeypatch):
    if not fits:
        monkeypatch.setattr(image_views, "open_store", lambda *arguments, **options: None)
    chosen = np.array([0, 2, 5, 7, 22])  # places among the 23 readable images: rows 0, 3, 6, 8, 23
    rows = evaluation.train_features.rows[chosen]
    classes = torch.from_numpy(rows % 3)
    order = [torch.tensor([4, 0, 1]), torch.tensor([2, 3]), torch.tensor([1])]
    found = list(CropReader(evaluation, chosen).crops(order, classes))
    for places, (view, labels) in zip(order, found, strict=True):
        assert view.shape == (len(places), 3, 16, 16)
        assert grays(view).tolist() == GRAYS[rows[places.numpy()]].tolist()
        assert torch.equal(labels, classes[places])


def test_crops_change_from_step_to_step_and_not_from_run_to_run(write_split, noise, model, tmp_path):
    table = open_images(write_split(tmp_path / "train.parquet", noise(6), [0, 1, 2] * 2))
    order = [torch.arange(6)] * 2

    def views(seed):
        evaluation = Evaluation(model, None, table, table, 16, tmp_path, seed=seed, workers=1)
        evaluation.train_features = told(np.arange(6), np.zeros((6, 4), np.float32))
        return [view for view, _ in CropReader(evaluation, np.arange(6)).crops(order, torch.zeros(6))]

    first, again, other = views(1), views(1), views(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


def test_embeddings_are_those_of_the_crops_and_need_no_gradient(evaluation):
    order, labels = [torch.arange(5)], torch.zeros(23)
    reader = CropReader(evaluation, np.arange(23))
    ((view, _),), ((embedding, _),) = reader.crops(order, labels), reader.embeddings(order, labels)
    assert torch.equal(embedding, evaluation.model(view))
    assert not embedding.requires_grad


@pytest.fixture
def evaluate_images(write_split, noise, model, tmp_path, monkeypatch):
    monkeypatch.setenv("VISSL_ZOO_CACHE", str(tmp_path / "cache"))
    table = open_images(str(write_split(tmp_path / "test.parquet", noise(9))))
    return lambda seed: Evaluation(model, None, None, table, 16, tmp_path, seed=seed, exact=True)


def test_they_are_the_pipelines_views(evaluate_images, model):
    evaluation = evaluate_images(3)
    pipeline, expected = ViewPipeline(16, seed=3), []
    for row in range(9):
        pixels, size = read_to_canvas(evaluation.test, row, (16, 16))
        views = pipeline.render(torch.from_numpy(pixels)[None], torch.tensor([size]), pipeline.draw(1, row))
        with torch.inference_mode():
            expected.append(unit_length(torch.stack([model(view)[0] for view in views]).numpy()))
    assert two_views(evaluation) == pytest.approx(np.stack(expected, axis=1), abs=1e-5)
    assert two_views(evaluation) is two_views(evaluation)


def test_they_follow_from_the_seed(evaluate_images):
    first, again, other = (two_views(evaluate_images(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unit_length():
    assert unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_a_sample_is_drawn_by_the_seed(shapes_evaluation):
    first, again, other = (sample_images(shapes_evaluation(seed=seed), 12) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(set(first)) == 12
    assert np.array_equal(first, np.sort(first))
    assert np.array_equal(sample_images(shapes_evaluation(), 1000), np.arange(40))
    among = np.array([3, 30, 31])
    assert np.array_equal(sample_images(shapes_evaluation(), 10, among), among)
    assert set(sample_images(shapes_evaluation(), 2, among)) < set(among)
